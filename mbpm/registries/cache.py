"""What is kept of a remote registry: one SQLite file, which is worth nothing but time.

`cache/registries/<host>-<digest of the address>/index.sqlite` holds the summary, the index files
that were asked for, and small documents by digest. Readers never wait for a writer (WAL). A file
that is damaged, or of another layout, is thrown away and made anew.
"""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from mbpm.files import remove
from specs.errors import MbpmError

LAYOUT = 2
FILE = "index.sqlite"
BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE pages (number INTEGER PRIMARY KEY, digest TEXT NOT NULL);
CREATE TABLE incoming (digest TEXT PRIMARY KEY, raw BLOB NOT NULL);
CREATE TABLE packs (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, page INTEGER NOT NULL,
    digest TEXT NOT NULL, bytes INTEGER NOT NULL, yanked INTEGER NOT NULL,
    base TEXT NOT NULL, domain TEXT NOT NULL, line BLOB NOT NULL
);
CREATE INDEX packs_page ON packs (page);
CREATE INDEX packs_shown ON packs (name) WHERE NOT yanked;
CREATE TABLE provides (name TEXT, pack TEXT, PRIMARY KEY (name, pack)) WITHOUT ROWID;
CREATE INDEX provides_pack ON provides (pack);
CREATE TABLE problems (page INTEGER NOT NULL, name TEXT, message TEXT NOT NULL);
CREATE TABLE bases (name TEXT PRIMARY KEY, digest TEXT NOT NULL);
CREATE TABLE files (
    name TEXT PRIMARY KEY, digest TEXT NOT NULL, raw BLOB NOT NULL,
    etag TEXT, modified TEXT, checked REAL
);
CREATE TABLE documents (digest TEXT PRIMARY KEY, raw BLOB NOT NULL);
"""
_WORDS = """
CREATE VIRTUAL TABLE words USING fts5 (
    name, domain, description, provides, facets, content='',
    tokenize="unicode61 remove_diacritics 0", prefix='2'
);
"""


class DamagedError(Exception):
    """The file is not to be used; it is gone when this is raised, and made anew at the next try."""


def folder_of(home: Path, address: str) -> Path:
    """Where what is known of a registry is kept."""
    host = (urlsplit(address).hostname or "").replace(":", "_")
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    return home / "cache" / "registries" / f"{host[:100]}-{digest}"


class Cache:
    """One registry's file, open."""

    def __init__(self, folder: Path) -> None:
        """Open it, making what is missing; in memory alone where the disk takes nothing.

        Raises:
            DamagedError: it was damaged, or taken away meanwhile.
        """
        self.folder = folder
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.folder / FILE, timeout=BUSY_SECONDS, isolation_level=None
            )
        except (OSError, sqlite3.OperationalError):
            return self._in_memory()
        try:
            return self._laid_out(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            if "readonly" in str(error):
                return self._in_memory()
            if _taken_away(error):
                raise DamagedError from None
            if not _damaged(error):
                raise _unusable(self.folder, error) from None
            self.drop()
            raise DamagedError from None

    def _in_memory(self) -> sqlite3.Connection:
        """For a home that cannot be written to."""
        return self._laid_out(sqlite3.connect(":memory:", isolation_level=None))

    def _laid_out(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        (layout,) = connection.execute("PRAGMA user_version").fetchone()
        # durable enough: what a power cut takes is fetched again
        connection.execute("PRAGMA synchronous = NORMAL")
        if layout == LAYOUT:
            return connection
        if layout:
            raise sqlite3.DatabaseError("another layout")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        (layout,) = connection.execute("PRAGMA user_version").fetchone()
        if not layout:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            try:
                connection.execute(_WORDS)
            except sqlite3.OperationalError:
                # a SQLite built without FTS5: searching then reads every line
                connection.execute("INSERT INTO meta VALUES ('wordless', 1)")
            connection.execute(f"PRAGMA user_version = {LAYOUT}")
        connection.execute("COMMIT")
        return connection

    @contextmanager
    def guarded(self) -> Iterator[sqlite3.Connection]:
        """The connection, for statements of any kind.

        Raises:
            DamagedError: the file turned out damaged, and is gone.
            MbpmError: it is being used by somebody else for too long, or the disk is full.
        """
        try:
            yield self._connection
        except sqlite3.DatabaseError as error:
            if _damaged(error) or _taken_away(error):
                self.close()
                if not _taken_away(error):
                    self.drop()
                raise DamagedError from None
            self._roll_back()
            raise _unusable(self.folder, error) from None
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def meta(self, key: str) -> object:
        """One fact; None where it is not known."""
        with self.guarded() as db:
            row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def remember(self, **facts: object) -> None:
        """Keep facts."""
        with self.guarded() as db:
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(facts.items()))

    def document(self, digest: str) -> bytes | None:
        """A small document, if it is here and sound."""
        with self.guarded() as db:
            row = db.execute("SELECT raw FROM documents WHERE digest = ?", (digest,)).fetchone()
        if row is None or hashlib.sha256(row[0]).hexdigest() != digest:
            return None
        return bytes(row[0])

    def keep_document(self, digest: str, raw: bytes) -> None:
        """Keep a document whose digest was checked."""
        with self.guarded() as db:
            db.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (digest, raw))

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def drop(self) -> None:
        """Throw the file away; whoever has it open goes on with the old one."""
        gone = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex}")
        try:
            self.folder.rename(gone)
        except FileNotFoundError:
            return
        except OSError as error:
            # Windows, while somebody else has it open
            raise MbpmError(
                f"{self.folder}: is damaged, and cannot be dropped ({error.strerror})",
                hint="end other mbpm commands, then `mbpm clean`",
            ) from None
        remove(gone)


def facts(home: Path, address: str) -> dict[str, object]:
    """What is remembered of a registry, without asking it or making anything."""
    folder = folder_of(home, address)
    if not (folder / FILE).is_file():
        return {}
    try:
        cache = Cache(folder)
        with cache.guarded() as db:
            found = dict(db.execute("SELECT key, value FROM meta"))
        cache.close()
    except (DamagedError, MbpmError):
        return {}
    return found


def _damaged(error: sqlite3.DatabaseError) -> bool:
    """Whether an error means a bad file, rather than a full disk or somebody who has it locked."""
    if isinstance(error, sqlite3.OperationalError):
        return str(error).startswith(("no such ", "Could not decode", "malformed"))
    return True


def _taken_away(error: sqlite3.DatabaseError) -> bool:
    """Whether an error is what happens when somebody else, as `mbpm clean`, removes the folder
    while the files beside the first one are not open yet. A bad disk says the same."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith(
        ("disk I/O error", "unable to open database file")
    )


def _unusable(folder: Path, error: sqlite3.DatabaseError) -> MbpmError:
    return MbpmError(
        f"{folder}: what is cached of this registry cannot be used ({error})",
        hint="`mbpm clean` drops cached indexes, and the next command fetches them again",
    )
