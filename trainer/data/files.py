"""Which files hold training data, and of what kind, by the end of their names."""

from __future__ import annotations

import contextlib
import json
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from specs.errors import NotFoundError, UsageError
from trainer.data.encoding import UTF16_MARKS
from trainer.data.markup import (
    HTML_SUFFIXES,
    MARKDOWN_SUFFIXES,
    PDF_SUFFIXES,
    TEXT_SUFFIXES,
)
from trainer.data.rows import PAIR
from trainer.data.tables import GZIP_MARK, has_known_columns

LINE_SUFFIXES = frozenset([".jsonl", ".ndjson"])
JSON_SUFFIXES = frozenset([".json"])
TABLE_SUFFIXES = frozenset([".csv", ".tsv"])
PARQUET_SUFFIXES = frozenset([".parquet"])
ROW_SUFFIXES = LINE_SUFFIXES | JSON_SUFFIXES | TABLE_SUFFIXES | PARQUET_SUFFIXES
DOCUMENT_SUFFIXES = TEXT_SUFFIXES | MARKDOWN_SUFFIXES | HTML_SUFFIXES | PDF_SUFFIXES
FORMATS = ".jsonl, .json, .csv, .tsv, .parquet, .txt, .md, .html or .pdf"
STDIN_NAME = "standard input"
MAX_STDIN_BYTES = 4 * 1024 * 1024 * 1024
_ABOUT = frozenset(["license", "licence", "copying", "notice", "dataset_infos.json"])
"""Files of a folder that are about the data and not of it, by name or by its stem."""


@dataclass(frozen=True)
class DataFile:
    """One file of data."""

    path: Path
    """Where the bytes are."""
    name: str
    """What messages call it."""
    group: str
    """What its documents' group is called: its place in the folder it was found in."""
    kind: str
    """A suffix of `ROW_SUFFIXES` or `DOCUMENT_SUFFIXES`."""

    @classmethod
    def of(cls, path: Path, name: str, group: str) -> DataFile:
        """A file whose kind its name says."""
        return cls(path, name, group, kind_of(name))


def kind_of(name: str) -> str:
    """The suffix that says what kind a file is, in lower case; rows may be compressed with gzip."""
    inside = Path(name.lower().removesuffix(".gz")).suffix
    return ".gz" if name.lower().endswith(".gz") and inside not in ROW_SUFFIXES else inside


def find_files(path: Path, name: str = "") -> list[DataFile]:
    """A file, or every data file of a folder and its subfolders but for hidden ones.

    Args:
        path: The file or folder.
        name: What to call it in messages, where it is not its path.

    Raises:
        NotFoundError: `path` does not exist.
        UsageError: it is not data, or there is none in the folder.
    """
    name = name or str(path)
    if path.is_file():
        if kind_of(name) not in ROW_SUFFIXES | DOCUMENT_SUFFIXES:
            raise UsageError(
                f"{name}: unknown kind of data `{path.suffix or path.name}` (expected {FORMATS})",
                hint=f"write one JSON object per line, such as {PAIR}, into a .jsonl file",
            )
        return [DataFile.of(path, name, Path(name).name)]
    if not path.is_dir():
        raise NotFoundError(f"{name}: no such file or folder")
    found = []
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        if file.is_file() and is_data(inside):
            place = inside.as_posix()
            found.append(DataFile.of(file, f"{name.rstrip('/')}/{place}", place))
    if not found:
        raise UsageError(f"{name}: no training data in this folder (expected files in {FORMATS})")
    return found


def is_data(inside: PurePath) -> bool:
    """Whether a file of a folder is data: by its kind, not hidden, not about the data."""
    hidden = any(part.startswith(".") for part in inside.parts)
    about = {inside.name.lower(), inside.stem.lower()} & _ABOUT
    return not hidden and not about and kind_of(inside.name) in ROW_SUFFIXES | DOCUMENT_SUFFIXES


@contextlib.contextmanager
def from_stream(stream: BinaryIO) -> Iterator[DataFile]:
    """Data from standard input; what kind it is, its first bytes say.

    Raises:
        UsageError: nothing comes, or more than `MAX_STDIN_BYTES`.
    """
    with tempfile.TemporaryDirectory(prefix="mbpm-") as folder:
        file = Path(folder) / "data"
        head, size = b"", 0
        with file.open("wb") as target:
            while piece := stream.read(1 << 20):
                head, size = head or piece, size + len(piece)
                if size > MAX_STDIN_BYTES:
                    raise UsageError(f"{STDIN_NAME}: is longer than {MAX_STDIN_BYTES:,} bytes")
                target.write(piece)
        if not head.strip():
            raise UsageError(f"{STDIN_NAME}: is empty (expected data as in {FORMATS})")
        yield DataFile(file, STDIN_NAME, STDIN_NAME, sniff(head))


def sniff(head: bytes) -> str:
    """The kind of data that begins with these bytes."""
    if head.startswith(GZIP_MARK):
        with contextlib.suppress(zlib.error):
            head = zlib.decompressobj(wbits=31).decompress(head, 1 << 16)
    for mark, kind in ((b"%PDF", ".pdf"), (b"PAR1", ".parquet")):
        if head.startswith(mark):
            return kind
    coding = "utf-16" if head.startswith(UTF16_MARKS) else "utf-8"
    text = head.decode(coding, "ignore").lstrip("\ufeff \t\r\n")
    first = text.split("\n", 1)[0]
    if text.startswith("{"):
        try:
            json.loads(first)
        except ValueError:
            return ".json"
        return ".jsonl"
    if text.startswith("["):
        return ".json"
    if text.startswith("<"):
        return ".html"
    if has_known_columns(first):
        return ".csv"
    return ".md" if text.startswith("#") else ".txt"
