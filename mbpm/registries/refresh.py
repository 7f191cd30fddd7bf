"""Bringing the cache of a remote registry up to date: the root, then the pages that changed."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbpm.fetch import limits
from mbpm.fetch.network import TooLongError
from mbpm.registries.searching import searched
from registry_index.summary import Page, parse_page
from registry_index.tree import CONFIG_FILE
from specs.errors import IntegrityError, NetworkError, NotFoundError
from specs.index_line import RegistryConfig
from specs.model import MAX_DOCUMENT_BYTES
from specs.summary import PackSummary, SummaryRoot

if TYPE_CHECKING:
    from mbpm.fetch.network import Network
    from mbpm.registries.cache import Cache

MAX_SUMMARY_BYTES = 1 << 30
MAX_CARD_BYTES = 64 * 1024 * 1024
"""Of all base cards of one registry together."""
BATCH = 64
BATCH_BYTES = 32 * 1024 * 1024
"""So many pages, of so many bytes or a single one, are in memory at once."""
TELL_BYTES = 2_000_000
"""From how many bytes on it is said that they are fetched."""
ATTEMPTS = 3

_ADD_PACK = """
INSERT INTO packs (name, domain, page, digest, bytes, yanked, base, line)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_ADD_WORDS = """
INSERT INTO words (rowid, name, domain, description, provides, facets) VALUES (?, ?, ?, ?, ?, ?)
"""
_DROP_WORDS = """
INSERT INTO words (words, rowid, name, domain, description, provides, facets)
VALUES ('delete', ?, ?, ?, ?, ?, ?)
"""


@dataclass
class Refreshed:
    """What a refresh came to."""

    packs: int = 0
    changed_pages: int = 0
    fetched_bytes: int = 0
    """Bytes of documents that were sent, without headers."""
    total_bytes: int = 0
    """Bytes of the whole summary."""
    bare: bool = False
    """Whether the registry has no summary, and only packs that are named exactly are found."""
    problems: list[str] = field(default_factory=list)


class Refresher:
    """One refresh of one registry."""

    def __init__(
        self, cache: Cache, network: Network, address: str, tell: Callable[[str], None]
    ) -> None:
        self._cache = cache
        self._network = network
        self._address = address
        self._tell = tell
        self._result = Refreshed()

    def run(self) -> Refreshed:
        """Ask the registry what changed, and fetch that.

        Raises:
            NetworkError, AuthError: it cannot be reached.
            NotFoundError: there is no registry, or its summary is gone.
            IntegrityError: what it sends is not what it should be.
        """
        for attempt in range(ATTEMPTS):
            try:
                if self._once(conditional=attempt == 0):
                    return self._result
            except NotFoundError:
                # the pages of an older root are dropped in time; there is a newer root then
                if attempt == ATTEMPTS - 1:
                    raise
        raise NetworkError(
            f"{self._address}: changes faster than it can be read",
            hint="run the same command again",
        )

    def _get(self, path: str, limit: int) -> bytes:
        data = self._network.get(f"{self._address}/{path}", limit=limit).data
        assert data is not None
        return data

    def _once(self, *, conditional: bool) -> bool:
        cache, url = self._cache, f"{self._address}/summary/root.json"
        known = cache.meta("root")
        etag, modified = cache.meta("etag"), cache.meta("modified")
        lacking = bool(cache.meta("lacking"))
        ask = known is not None and conditional and not lacking
        try:
            document = self._network.get(
                url,
                limit=MAX_DOCUMENT_BYTES,
                etag=str(etag) if ask and etag else None,
                modified=str(modified) if ask and modified else None,
            )
        except NotFoundError:
            if known is not None:
                raise NotFoundError(f"{url}: is gone; the registry had a summary before") from None
            self._bare()
            return True
        now = time.time()
        if document.data is None:
            cache.remember(checked=now, failed=0)
            self._count()
            return True
        self._result.fetched_bytes += len(document.data)
        digest = hashlib.sha256(document.data).hexdigest()
        facts: dict[str, object] = {"etag": document.etag, "modified": document.modified}
        facts |= {"checked": now, "failed": 0}
        if digest != known or lacking:
            root = SummaryRoot.parse(document.data, url)
            self._check_sizes(root, url)
            total = len(document.data) + sum(size for _, size in root.pages)
            facts |= {"root": digest, "bare": 0, "packs": root.packs, "total": total}
            facts["base_files"] = " ".join(root.base_files)
            self._config()
            self._fetch(root)
            facts["lacking"] = int(not self._cards(root))
            if not self._apply(root, facts):
                return False
        else:
            cache.remember(**facts)
        self._count()
        return True

    def _count(self) -> None:
        self._result.packs = int(str(self._cache.meta("packs")))
        self._result.total_bytes = int(str(self._cache.meta("total")))
        with self._cache.guarded() as db:
            rows = db.execute("SELECT message FROM problems LIMIT 100").fetchall()
        self._result.problems += [message for (message,) in rows]

    def _bare(self) -> None:
        self._config()
        self._result.bare = True
        self._cache.remember(bare=1, checked=time.time(), failed=0)

    def _config(self) -> None:
        url = f"{self._address}/{CONFIG_FILE}"
        try:
            raw = self._get(CONFIG_FILE, MAX_DOCUMENT_BYTES)
        except NotFoundError:
            raise NotFoundError(
                f"no registry at {self._address}: it has no {CONFIG_FILE}",
                hint="check the address; the folder that holds config.json and index/ is meant",
            ) from None
        config = RegistryConfig.parse(raw, url)
        self._result.fetched_bytes += len(raw)
        self._cache.remember(config=config.canonical())

    def _check_sizes(self, root: SummaryRoot, url: str) -> None:
        if sum(size for _, size in root.pages) > MAX_SUMMARY_BYTES:
            raise IntegrityError(f"{url}: names pages of more than {MAX_SUMMARY_BYTES:,} bytes")
        if sum(size for _, size in root.bases.values()) > MAX_CARD_BYTES:
            raise IntegrityError(f"{url}: names base cards of more than {MAX_CARD_BYTES:,} bytes")

    def _fetch(self, root: SummaryRoot) -> None:
        """Put every page that is not here into `incoming`, where a later attempt finds it too."""
        with self._cache.guarded() as db:
            here = {d for (d,) in db.execute("SELECT digest FROM pages")}
            incoming = {d for (d,) in db.execute("SELECT digest FROM incoming")}
            # what no refresh will ever apply must not pile up
            old = incoming.difference(d for d, _ in root.pages)
            db.executemany("DELETE FROM incoming WHERE digest = ?", [(d,) for d in old])
        here |= incoming
        missing = {d: size for d, size in root.pages if size and d not in here}
        total = sum(missing.values())
        if total > TELL_BYTES:
            from mbpm.files import check_space

            check_space(self._cache.folder, 4 * total, "the registry's index")
            self._tell(f"fetching the index of {self._address} ({total / 1e6:.1f} MB)")
        for batch in _batches(missing.items()):
            pages = list(self._parallel(self._page, batch))
            with self._cache.guarded() as db:
                db.execute("BEGIN IMMEDIATE")
                db.executemany("INSERT OR IGNORE INTO incoming VALUES (?, ?)", pages)
                db.execute("COMMIT")
            self._result.fetched_bytes += sum(len(raw) for _, raw in pages)

    def _page(self, page: tuple[str, int]) -> tuple[str, bytes]:
        digest, size = page
        raw = self._get(f"summary/{digest}", size)
        if hashlib.sha256(raw).hexdigest() != digest:
            raise IntegrityError(
                f"{self._address}/summary/{digest}: its bytes do not match its name"
            )
        return digest, raw

    def _parallel(
        self, work: Callable[[tuple[str, int]], tuple[str, bytes]], items: Sequence[tuple[str, int]]
    ) -> Iterator[tuple[str, bytes]]:
        if len(items) == 1:
            return iter([work(items[0])])
        with ThreadPoolExecutor(limits.CONNECTIONS) as pool:
            return iter(list(pool.map(work, items)))

    def _cards(self, root: SummaryRoot) -> bool:
        """Fetch the base cards; one that cannot be had costs nobody anything but itself.

        Returns:
            Whether all of them are here.
        """
        whole = True
        for name, (digest, size) in root.bases.items():
            if self._cache.document(digest) is not None:
                continue
            url = f"bases/{name}.json"
            try:
                raw = self._get(url, size)
            except (NotFoundError, TooLongError) as error:
                self._result.problems.append(error.message)
                whole = False
                continue
            self._result.fetched_bytes += len(raw)
            if hashlib.sha256(raw).hexdigest() != digest:
                where = f"{self._address}/{url}"
                self._result.problems.append(f"{where}: is not what the summary says")
                whole = False
                continue
            self._cache.keep_document(digest, raw)
        return whole

    def _apply(self, root: SummaryRoot, facts: dict[str, object]) -> bool:
        """Make the pages of a root the ones that count, all at once.

        Returns:
            Whether all of them were here; another process may have replaced some meanwhile.
        """
        with self._cache.guarded() as db:
            db.execute("BEGIN IMMEDIATE")
            words = not db.execute("SELECT 1 FROM meta WHERE key = 'wordless'").fetchone()
            there = dict(db.execute("SELECT number, digest FROM pages"))
            if len(there) != len(root.pages):
                _clear(db, words=words)
                there = {}
            for number, (digest, size) in enumerate(root.pages):
                if there.get(number) == digest:
                    continue
                ask = "SELECT raw FROM incoming WHERE digest = ?"
                row = db.execute(ask, (digest,)).fetchone() if size else (b"",)
                if row is None:
                    db.execute("ROLLBACK")
                    return False
                where = f"{self._address}/summary/{digest}"
                page = parse_page(row[0], number, len(root.pages), where)
                _replace(db, number, page, words=words)
                db.execute("INSERT OR REPLACE INTO pages VALUES (?, ?)", (number, digest))
                self._result.changed_pages += 1
            db.execute("DELETE FROM bases")
            cards = [(name, digest) for name, (digest, _) in root.bases.items()]
            db.executemany("INSERT INTO bases VALUES (?, ?)", cards)
            db.execute("DELETE FROM incoming")
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(facts.items()))
            db.execute("COMMIT")
        return True


def _batches(pages: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    batch: list[tuple[str, int]] = []
    for page in pages:
        if len(batch) == BATCH or sum(size for _, size in [*batch, page]) > BATCH_BYTES:
            if batch:
                yield batch
            batch = []
        batch.append(page)
    if batch:
        yield batch


def _clear(db: sqlite3.Connection, *, words: bool) -> None:
    for table in ("pages", "packs", "provides", "problems"):
        db.execute(f"DELETE FROM {table}")  # noqa: S608
    if words:
        db.execute("INSERT INTO words (words) VALUES ('delete-all')")


def _replace(db: sqlite3.Connection, number: int, page: Page, *, words: bool) -> None:
    """Make the packs of a page those that it lists now, touching only what differs."""
    rows = db.execute("SELECT name, id, line FROM packs WHERE page = ?", (number,)).fetchall()
    new = {p.name: (p, line) for p, line in zip(page.packs, page.lines, strict=True)}
    for name, key, line in rows:
        if name in new and new[name][1] == line:
            del new[name]
            continue
        pack = PackSummary.model_validate_json(line)
        if words and not pack.yanked:
            db.execute(_DROP_WORDS, (key, *searched(pack)))
        db.execute("DELETE FROM provides WHERE pack = ?", (name,))
        db.execute("DELETE FROM packs WHERE id = ?", (key,))
    for pack, line in new.values():
        facts = (pack.name, pack.domain, number, *pack.index, pack.yanked, pack.base.name, line)
        key = db.execute(_ADD_PACK, facts).lastrowid
        # what cannot be had is not found either
        if words and not pack.yanked:
            db.execute(_ADD_WORDS, (key, *searched(pack)))
        for name in set(pack.provides):
            db.execute("INSERT INTO provides VALUES (?, ?)", (name, pack.name))
    db.execute("DELETE FROM problems WHERE page = ?", (number,))
    problems = [(number, p.name, p.message) for p in page.problems]
    db.executemany("INSERT INTO problems VALUES (?, ?, ?)", problems)
