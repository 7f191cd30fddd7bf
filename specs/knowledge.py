"""Reading a pack's `knowledge.sqlite` without trusting it (docs/formats/pack.md).

It holds one plain table `passages(title TEXT, text TEXT)` and nothing else: no index, view, trigger
or virtual table, so that reading it runs none of SQLite's modules on a stranger's data. The
settings are those of https://www.sqlite.org/security.html, "Untrusted SQLite Database Files".
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specs.errors import IntegrityError

if TYPE_CHECKING:
    import sqlite3

FORMAT = 1
"""`PRAGMA user_version` of the file."""
MAX_BYTES = 1 << 30
MAX_PASSAGES = 1_000_000
MAX_TITLE_BYTES = 1000
MAX_TEXT_BYTES = 64 * 1024

_MAX_ROW_BYTES = 1 << 20
_HEADER_BYTES = 100
_COLUMN = r'"?{}"? TEXT(?: NOT NULL)?'
_TABLE = re.compile(
    rf'CREATE TABLE "?passages"? ?\( ?{_COLUMN.format("title")} ?, ?{_COLUMN.format("text")} ?\)',
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Passage:
    """A piece of text that answers questions."""

    title: str
    text: str


def check_knowledge(file: Path, size: int) -> int:
    """Read a whole knowledge file; returns how many passages it holds.

    Args:
        file: Where it is.
        size: What the manifest says of it.

    Raises:
        IntegrityError: as `read_passages`, or another size.
    """
    found = file.stat().st_size
    if found != size:
        raise IntegrityError(f"{file}: has {found:,} bytes, and its manifest says {size:,}")
    return sum(1 for _ in read_passages(file))


def read_passages(file: Path) -> Iterator[Passage]:
    """The passages of a knowledge file, each checked before it is handed out.

    Raises:
        IntegrityError: naming the file and the rule it breaks.
    """
    import sqlite3

    _check_header(file)
    try:
        with closing(_open(file)) as database:
            _check_schema(database, file)
            (sound,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if sound != b"ok":
                raise IntegrityError(f"{file}: is damaged ({sound.decode('utf-8', 'replace')})")
            rows = database.execute("SELECT title, typeof(title), text, typeof(text) FROM passages")
            for number, (title, title_kind, text, text_kind) in enumerate(rows, 1):
                if number > MAX_PASSAGES:
                    raise IntegrityError(f"{file}: holds more than {MAX_PASSAGES:,} passages")
                where = f"{file}: passage {number}"
                yield Passage(
                    _text(title, title_kind, "title", MAX_TITLE_BYTES, where),
                    _text(text, text_kind, "text", MAX_TEXT_BYTES, where),
                )
    except sqlite3.Error as error:
        raise IntegrityError(f"{file}: is not a usable SQLite file ({error})") from None


def _check_header(file: Path) -> None:
    """The file's first bytes (https://www.sqlite.org/fileformat.html), before SQLite sees it."""
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise IntegrityError(f"{file}: has {size:,} bytes, more than the {MAX_BYTES:,} accepted")
    with file.open("rb") as stream:
        raw = stream.read(_HEADER_BYTES)
    if len(raw) < _HEADER_BYTES or not raw.startswith(b"SQLite format 3\0"):
        raise IntegrityError(f"{file}: is not an SQLite file")
    page_size, write_version, read_version = struct.unpack_from(">HBB", raw, 16)
    (pages,) = struct.unpack_from(">I", raw, 28)
    claimed = pages * (65536 if page_size == 1 else page_size)
    if claimed != size:
        raise IntegrityError(f"{file}: says it has {claimed:,} bytes, and has {size:,}")
    if (write_version, read_version) != (1, 1):
        raise IntegrityError(
            f"{file}: is in write-ahead mode", hint="`PRAGMA journal_mode=DELETE` ends that"
        )
    encoding, version = struct.unpack_from(">II", raw, 56)
    if encoding != 1:
        raise IntegrityError(f"{file}: its text is not stored as UTF-8")
    if version != FORMAT:
        raise IntegrityError(f"{file}: has `user_version` {version} (expected {FORMAT})")


def _open(file: Path) -> sqlite3.Connection:
    import sqlite3

    # immutable: neither a lock nor a journal beside the file is looked at
    address = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
    database = sqlite3.connect(address, uri=True)
    # decoded here, so that what is no UTF-8 is named; SQLite would hand out anything as text
    database.text_factory = bytes
    if hasattr(database, "enable_load_extension"):
        database.enable_load_extension(False)
    if sys.version_info >= (3, 11):
        # Python 3.10 has no limits; there the size of the file bounds a value
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_ROW_BYTES)
        database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    for setting in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0"):
        database.execute(f"PRAGMA {setting}")
    return database


def _check_schema(database: sqlite3.Connection, file: Path) -> None:
    found = database.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    expected = "expected only the table `passages(title TEXT, text TEXT)`"
    for raw in found:
        kind, name, sql = (
            v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in raw
        )
        sql = " ".join(sql.split())
        if (kind, name) != ("table", "passages"):
            kind = "virtual table" if sql.upper().startswith("CREATE VIRTUAL") else kind
            raise IntegrityError(f"{file}: holds {kind[:20]} `{name[:80]}` ({expected})")
        if not _TABLE.fullmatch(sql):
            raise IntegrityError(f"{file}: table `passages` is made by `{sql[:200]}` ({expected})")
    if len(found) != 1:
        raise IntegrityError(f"{file}: holds {len(found)} tables ({expected})")


def _text(value: object, kind: bytes, column: str, most: int, where: str) -> str:
    if kind != b"text" or not isinstance(value, bytes):
        raise IntegrityError(f"{where}: `{column}` holds {kind.decode()} (expected text)")
    if len(value) > most:
        raise IntegrityError(
            f"{where}: `{column}` has {len(value):,} bytes, more than the {most:,} accepted"
        )
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{where}: `{column}` is not UTF-8 (byte {error.start})") from None
