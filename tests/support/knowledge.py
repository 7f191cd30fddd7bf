"""Files of passages, sound ones and others."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

TABLE = "CREATE TABLE passages(title TEXT, text TEXT)"


def knowledge_file(
    file: Path, passages: Iterable[tuple[object, object]] = (), *more: str, table: str = TABLE
) -> Path:
    """Write a `knowledge.sqlite` as docs/formats/pack.md says.

    Args:
        file: Where.
        passages: (title, text) each.
        more: SQL to run afterwards.
        table: Makes the table, rightly or not.
    """
    file.unlink(missing_ok=True)
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA user_version = 1")
        if table:
            database.execute(table)
        database.execute("BEGIN")
        database.executemany("INSERT INTO passages VALUES (?, ?)", passages)
        database.execute("COMMIT")
        for statement in more:
            database.execute(statement)
    return file


def knowledge_bytes(folder: Path, passages: Iterable[tuple[object, object]]) -> bytes:
    """The bytes of such a file, made in `folder`."""
    file = knowledge_file(folder / "made.sqlite", passages)
    try:
        return file.read_bytes()
    finally:
        file.unlink()
