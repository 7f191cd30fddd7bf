"""Reading training data of any kind: files, folders of them, standard input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from specs.errors import UsageError
from trainer.data import tables
from trainer.data.documents import read_documents
from trainer.data.example import Example
from trainer.data.files import (
    DOCUMENT_SUFFIXES,
    JSON_SUFFIXES,
    LINE_SUFFIXES,
    PARQUET_SUFFIXES,
    DataFile,
    find_files,
)
from trainer.data.rows import CHAT, PAIR, examples_of
from trainer.data.tables import PlacedRow

MAX_EXAMPLES = 10_000_000


def read_dataset(path: Path) -> list[Example]:
    """Read a file, or every data file of a folder and its subfolders.

    Documents become training pairs without a model (see `trainer.data.documents`). A chat of
    several turns becomes one example per assistant message.

    Raises:
        NotFoundError: `path` does not exist.
        UsageError: naming file, line, field, what was expected and what was found.
    """
    return read_files(find_files(path))


def read_files(files: Sequence[DataFile], group_by: str = "group") -> list[Example]:
    """Examples of files, those of rows first; arguments and errors as of `read_placed`."""
    return [example for _, example in read_placed(files, group_by)]


def read_placed(
    files: Sequence[DataFile],
    group_by: str = "group",
    bad: Callable[[UsageError], None] | None = None,
) -> Iterator[tuple[str, Example]]:
    """Examples with their places: file and line, row or section.

    Args:
        files: What to read.
        group_by: The field of a row that names its group.
        bad: Told of every row that is malformed; without it the first one is raised.

    Raises:
        UsageError: as `read_dataset`; or there are more than `MAX_EXAMPLES`.
    """
    documents = [file for file in files if file.kind in DOCUMENT_SUFFIXES]
    count = 0
    for file in files:
        if file.kind in DOCUMENT_SUFFIXES:
            continue
        before = count
        for where, row in _rows(file):
            try:
                if isinstance(row, UsageError):
                    raise row
                examples = examples_of(row, where, group_by)
            except UsageError as error:
                if bad is None:
                    raise
                bad(error)
                before = -1
                continue
            count += len(examples)
            if count > MAX_EXAMPLES:
                raise UsageError(f"{where}: there are more than {MAX_EXAMPLES:,} examples")
            yield from ((where, example) for example in examples)
        if count == before:
            raise UsageError(
                f"{file.name}: is empty (expected {_EXPECTED.get(file.kind, 'rows')})",
                hint=f"a row is {PAIR} or {CHAT}",
            )
    yield from read_documents(documents)


_EXPECTED = {
    **dict.fromkeys(LINE_SUFFIXES, "one JSON object per line"),
    **dict.fromkeys(JSON_SUFFIXES, "an array of JSON objects"),
    ".csv": "a header and rows",
    ".tsv": "a header and rows",
}


def _rows(file: DataFile) -> Iterator[PlacedRow]:
    if file.kind in LINE_SUFFIXES:
        return tables.json_lines(file.path, file.name)
    if file.kind in JSON_SUFFIXES:
        return tables.json_array(file.path, file.name)
    if file.kind in PARQUET_SUFFIXES:
        return tables.parquet(file.path, file.name)
    return tables.separated(file.path, file.name, file.kind)
