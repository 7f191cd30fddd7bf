"""A pack's `knowledge.sqlite`: the passages of the documents it was trained on.

The format is docs/formats/pack.md's: one plain table and nothing else.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from specs.errors import UsageError
from specs.knowledge import FORMAT, MAX_PASSAGES, MAX_TEXT_BYTES, MAX_TITLE_BYTES, Passage
from trainer.data.documents import split_passages, title_of
from trainer.data.files import DOCUMENT_SUFFIXES, DataFile
from trainer.data.markup import read_document


def passages_of(files: Sequence[DataFile]) -> list[Passage]:
    """The passages of the documents among files, titled by document and heading.

    Raises:
        UsageError: there is no document, or there are more passages than a pack may hold.
    """
    found = [passage for file in files for passage in _passages(file)]
    if not found:
        raise UsageError(
            "no document among the data to take passages from (expected text, Markdown, HTML or "
            "PDF)",
            hint="leave out `--knowledge`",
        )
    if len(found) > MAX_PASSAGES:
        raise UsageError(
            f"{len(found):,} passages, more than the {MAX_PASSAGES:,} that a pack may hold",
            hint="leave out `--knowledge`, or give fewer documents",
        )
    return found


def _passages(file: DataFile) -> Iterator[Passage]:
    if file.kind not in DOCUMENT_SUFFIXES:
        return
    document = read_document(file.path, file.name, file.kind)
    name = title_of(document, Path(file.group).stem)
    for section in document.sections:
        title = f"{name}: {section.heading}" if section.heading != name else name
        for text in split_passages(section.text):
            yield Passage(
                _cut(title.removesuffix(": "), MAX_TITLE_BYTES), _cut(text, MAX_TEXT_BYTES)
            )


def _cut(text: str, limit: int) -> str:
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def write_knowledge(file: Path, passages: Sequence[Passage]) -> None:
    """Write the file at once or not at all."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.unlink(missing_ok=True)
    with closing(sqlite3.connect(temporary, isolation_level=None)) as database:
        database.execute(f"PRAGMA user_version = {FORMAT:d}")
        database.execute("CREATE TABLE passages(title TEXT, text TEXT)")
        database.execute("BEGIN")
        database.executemany(
            "INSERT INTO passages VALUES (?, ?)", ((p.title, p.text) for p in passages)
        )
        database.execute("COMMIT")
    temporary.replace(file)
