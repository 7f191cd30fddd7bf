"""One full-text index over the passages of all installed packs: making it, and searching it.

An SQLite file with one FTS5 table (https://www.sqlite.org/fts5.html). It is made from passages that
`specs.knowledge` checked; a pack's own file is never searched itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from specs.errors import IntegrityError, MbpmError
from specs.knowledge import Passage

FORMAT = 1
"""`PRAGMA user_version` of the file."""
MOST_WORDS = 64
"""More different words of a question than this find nothing more."""
MOST_LETTERS = 100
TITLE_WEIGHT = 2.0
"""How much more a word counts in a title than in a text."""


@dataclass(frozen=True)
class Found:
    """A passage that a search found."""

    pack: str
    title: str
    text: str
    score: float
    """BM25; higher is better. Scores of different searches cannot be compared."""


def build_index(file: Path, packs: Iterable[tuple[str, Iterable[Passage]]]) -> None:
    """Write the index of these packs' passages to a new file, which is no good if this fails.

    Raises:
        IntegrityError: as the passages do.
        MbpmError: the disk is full, or this Python's SQLite has no FTS5.
    """
    import sqlite3

    def rows() -> Iterator[tuple[str, str, str]]:
        for name, passages in packs:
            for passage in passages:
                yield name, passage.title, passage.text

    try:
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            # whoever calls makes the file durable, once, when it is whole
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA synchronous = OFF")
            database.execute(f"PRAGMA user_version = {FORMAT}")
            database.execute(
                "CREATE VIRTUAL TABLE passages USING fts5(pack UNINDEXED, title, text, "
                "tokenize = 'unicode61 remove_diacritics 2')"
            )
            database.execute("BEGIN")
            database.executemany("INSERT INTO passages VALUES (?, ?, ?)", rows())
            database.execute("INSERT INTO passages(passages) VALUES ('optimize')")
            database.execute("COMMIT")
    except sqlite3.Error as error:
        raise MbpmError(f"cannot write an index of passages ({error})") from None


def search(file: Path, question: str, limit: int = 3) -> list[Found]:
    """The passages that have most to do with a question, best first.

    Raises:
        IntegrityError: the index is damaged.
        FileNotFoundError: there is none.
    """
    import sqlite3

    query = _query(question)
    if not query:
        return []
    file.stat()
    try:
        address = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version != FORMAT:
                raise IntegrityError(f"{file}: is not an index of passages of format {FORMAT}")
            rows = database.execute(
                "SELECT pack, title, text, bm25(passages, 0, ?, 1) AS rank FROM passages "
                "WHERE passages MATCH ? ORDER BY rank, rowid LIMIT ?",
                (TITLE_WEIGHT, query, limit),
            )
            return [Found(pack, title, text, -rank) for pack, title, text, rank in rows]
    except sqlite3.Error as error:
        raise IntegrityError(f"{file}: is damaged ({error})") from None


def _query(question: str) -> str:
    """A query for passages with any of the question's words.

    Every word is a quoted string: letters and digits only, in which FTS5 sees no operator.
    """
    # letters and digits in composed form are what the index's tokenizer makes words of
    words = dict.fromkeys(re.findall(r"[^\W_]+", unicodedata.normalize("NFC", question)))
    return " OR ".join(f'"{w[:MOST_LETTERS]}"' for w in list(words)[:MOST_WORDS])
