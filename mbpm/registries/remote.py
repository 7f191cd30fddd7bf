"""A registry that a web server hands out: static files, the same tree as a folder's."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mbpm.offers import BaseOffer
from mbpm.registries import indexes
from mbpm.registries.cache import Cache, DamagedError, folder_of
from mbpm.registries.query import Found, Query
from mbpm.registries.refresh import Refreshed, Refresher
from mbpm.registries.searching import search
from registry_index.tree import blob_path, index_path
from specs.blobs import FileSource, UrlSource
from specs.errors import (
    AuthError,
    IntegrityError,
    MbpmError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from specs.index_line import RegistryConfig
from specs.model import MAX_DOCUMENT_BYTES
from specs.names import check_name
from specs.summary import PackSummary

if TYPE_CHECKING:
    from mbpm.fetch import AnySource
    from mbpm.fetch.network import Network
    from mbpm.registries.config import Known
    from specs.base_card import BaseBlob
    from specs.blobs import Blob
    from specs.index_line import IndexLine
    from specs.manifest import Manifest

T = TypeVar("T")

FRESH_SECONDS = 600.0
"""How long a registry is believed not to have changed."""
ATTEMPTS = 3
"""How often a cache that is damaged, or that others take away, is made anew."""
FAILED_SECONDS = 60.0
"""How long a registry that could not be reached is not asked again."""


class RemoteRegistry:
    """A registry at an address, as a source; what is known of it is cached."""

    def __init__(
        self,
        known: Known,
        home: Path,
        network: Network,
        *,
        warn: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self.label = known.address
        self.name = known.name
        self._own_mirrors = known.mirrors
        self._home = home
        self._network = network
        self._warn, self._note = warn, note
        self._cache: Cache | None = None
        self._read: indexes.Read = {}
        self._current = False
        """Whether this command knows already how fresh the cache is."""
        self.stale = False
        """As `Source.stale`."""

    # the cache

    def _asked(self, ask: Callable[[Cache], T]) -> T:
        """The answer of the cache, brought up to date first; a damaged one is made anew."""
        for _ in range(ATTEMPTS):
            try:
                cache = self._opened()
                self._freshen(cache)
                return ask(cache)
            except DamagedError:
                self._cache, self._current = None, False
        raise IntegrityError(
            f"{folder_of(self._home, self.label)}: is damaged again and again",
            hint="check the disk, or put the home elsewhere with `--home DIR`",
        )

    def _opened(self) -> Cache:
        if self._cache is None:
            self._cache = Cache(folder_of(self._home, self.label))
        return self._cache

    def _freshen(self, cache: Cache) -> None:
        if self._current:
            return
        there = cache.meta("root") is not None or bool(cache.meta("bare"))
        if not there:
            if self._network.offline:
                raise NetworkError(
                    f"nothing of the registry {self.label} is cached, and the network is switched "
                    "off (`--offline`)",
                    hint="run `mbpm registry refresh` once without `--offline`",
                )
            self._refresh(cache)
        elif not self._network.offline and not self._recent(cache):
            try:
                self._refresh(cache)
            except MbpmError as error:
                # also a hotel's login page in the place of the registry
                self.stale = True
                cache.remember(failed=time.time())
                age = _age(cache.meta("checked"))
                self._warn(f"{error.message}; going on with what was cached {age}")
        self._current = True

    def _recent(self, cache: Cache) -> bool:
        now, checked, failed = time.time(), cache.meta("checked"), cache.meta("failed")
        # a time of the future is a clock that was wrong
        if isinstance(failed, float) and 0 <= now - failed < FAILED_SECONDS:
            self.stale = True
            age = _age(checked)
            self._warn(f"{self.label} cannot be reached; going on with what was cached {age}")
            return True
        return isinstance(checked, float) and 0 <= now - checked < FRESH_SECONDS

    def _refresh(self, cache: Cache) -> Refreshed:
        result = Refresher(cache, self._network, self.label, self._note).run()
        self._current, self.stale = True, False
        return result

    def refresh(self) -> Refreshed:
        """Ask the registry now, whenever it was asked last; raises as `Refresher.run`."""
        for _ in range(ATTEMPTS):
            try:
                return self._refresh(self._opened())
            except DamagedError:
                self._cache = None
        raise IntegrityError(f"{folder_of(self._home, self.label)}: is damaged again and again")

    def close(self) -> None:
        """Let go of the cache."""
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    # what it offers

    def check(self) -> None:
        """As `Source.check`."""
        self._asked(lambda cache: None)

    def lines(self, name: str) -> Sequence[IndexLine]:
        """As `Source.lines`; NetworkError where it is not cached and cannot be fetched."""
        try:
            index_path(name)
        except ValueError as error:
            raise UsageError(str(error)) from None
        return self._asked(lambda cache: self._indexes(cache).lines(name))

    def prefetch(self, names: Sequence[str]) -> None:
        """Fetch index files of packs, and of those they require, before they are asked for."""
        if not self._network.offline:
            self._asked(lambda cache: self._indexes(cache).prefetch(names))

    def _indexes(self, cache: Cache) -> indexes.Indexes:
        return indexes.Indexes(cache, self._network, self.label, self._again, self._read)

    def _again(self) -> None:
        """Refresh once more, because an index file is newer than the summary."""
        self._refresh(self._opened())

    def names(self) -> Sequence[str]:
        """As `Source.names`."""

        def ask(cache: Cache) -> list[str]:
            with cache.guarded() as db:
                return [n for (n,) in db.execute("SELECT name FROM packs ORDER BY name")]

        return self._asked(ask)

    def providers(self, name: str) -> Sequence[str]:
        """As `Source.providers`."""

        def ask(cache: Cache) -> list[str]:
            with cache.guarded() as db:
                found = "SELECT pack FROM provides WHERE name = ? ORDER BY pack"
                return [p for (p,) in db.execute(found, (name,))]

        return self._asked(ask)

    def search(self, query: Query, limit: int | None) -> Found:
        """As `Source.search`."""
        return self._asked(lambda cache: search(cache, query, limit))

    def summaries(self, names: Sequence[str]) -> Sequence[PackSummary]:
        """As `Source.summaries`."""

        def ask(cache: Cache) -> list[PackSummary]:
            found = []
            with cache.guarded() as db:
                for name in names:
                    row = db.execute("SELECT line FROM packs WHERE name = ?", (name,)).fetchone()
                    found += [PackSummary.model_validate_json(row[0])] if row else []
            return found

        return self._asked(ask)

    def having(self, names: Sequence[str]) -> list[str]:
        """As `Source.having`."""

        def ask(cache: Cache) -> list[str]:
            with cache.guarded() as db:
                one = "SELECT name FROM packs WHERE name = ?"
                return [r[0] for n in names if (r := db.execute(one, (n,)).fetchone())]

        return self._asked(ask)

    def beginning(self, prefix: str, limit: int) -> list[str]:
        """As `Source.beginning`."""

        def ask(cache: Cache) -> list[str]:
            with cache.guarded() as db:
                found = "SELECT name FROM packs WHERE name >= ? AND name < ? ORDER BY name LIMIT ?"
                rows = db.execute(found, (prefix, prefix + "\x7f", limit))
                return [n for (n,) in rows]

        return self._asked(ask)

    def bases(self) -> Sequence[BaseOffer]:
        """As `Source.bases`; a card that is not sound is left out."""

        def ask(cache: Cache) -> list[BaseOffer]:
            with cache.guarded() as db:
                rows = db.execute("SELECT name, digest FROM bases ORDER BY name").fetchall()
            from specs.base_card import BaseCard

            offers = []
            for name, digest in rows:
                raw = cache.document(digest)
                try:
                    card = BaseCard.parse(raw or b"", f"{self.label}/bases/{name}.json")
                except MbpmError:
                    continue
                if card.name == name:
                    offers.append(BaseOffer(card, self.label, Path("/"), self._base_sources))
            return offers

        return self._asked(ask)

    def base(self, name: str) -> BaseOffer:
        """As `Source.base`."""
        from specs.base_card import BaseCard

        url = f"{self.label}/bases/{check_name(name)}.json"
        raw = self._network.get(url, limit=MAX_DOCUMENT_BYTES).data or b""
        return BaseOffer(BaseCard.parse(raw, url), self.label, Path("/"), self._base_sources)

    def freeze(self) -> None:
        """As `Source.freeze`."""
        self._current = True

    # bytes

    @cached_property
    def _mirrors(self) -> tuple[str, ...]:
        raw = self._asked(lambda cache: cache.meta("config"))
        if not isinstance(raw, bytes):
            return ()
        return RegistryConfig.parse(raw, f"{self.label}/config.json").mirrors

    def _addresses(self, sha256: str) -> list[AnySource]:
        """A blob at the mirrors the person configured, the registry, and the registry's mirrors."""
        trees = (*self._own_mirrors, self.label, *(m.rstrip("/") for m in self._mirrors))
        path = blob_path(sha256).as_posix()
        return [UrlSource(url=f"{tree}/{path}") for tree in dict.fromkeys(trees)]

    def sources(self, blob: Blob, scratch: Path) -> list[AnySource]:
        """As `Source.sources`."""
        return self._addresses(blob.sha256)

    def _base_sources(self, file: BaseBlob) -> list[AnySource]:
        # a path on the machine that made the card is nothing here
        others: list[AnySource] = [s for s in file.sources if not isinstance(s, FileSource)]
        own = self._asked(lambda cache: cache.meta("base_files"))
        # asking for what the registry does not have would only bring a warning
        if own is None or file.blob.sha256 in str(own).split() or not others:
            return [*self._addresses(file.blob.sha256), *others]
        return others

    def manifest(self, line: IndexLine) -> Manifest:
        """As `Source.manifest`."""
        from specs.manifest import Manifest

        what = f"the manifest of {line.name} {line.version}"
        raw = self._document(line.manifest, line.manifest_size, what)
        return Manifest.parse(raw, f"{self.label}: {what}")

    def document(self, blob: Blob) -> bytes:
        """As `Source.document`."""
        return self._document(blob.sha256, blob.size, blob.path)

    def _document(self, sha256: str, size: int, what: str) -> bytes:
        if size > MAX_DOCUMENT_BYTES:
            raise IntegrityError(
                f"{self.label}: {what} has {size:,} bytes, too many for a document"
            )
        raw = self._asked(lambda cache: cache.document(sha256))
        if raw is not None:
            return raw
        if self._network.offline:
            raise NetworkError(
                f"{what} is not cached of {self.label}, and the network is switched off "
                "(`--offline`)",
                hint="run the same command once without `--offline`",
            )
        failure: MbpmError | None = None
        for source in self._addresses(sha256):
            assert isinstance(source, UrlSource)
            try:
                raw = self._network.get(source.url, limit=size).data or b""
            except (NotFoundError, NetworkError, AuthError) as error:
                failure = failure or error
                continue
            if hashlib.sha256(raw).hexdigest() == sha256:
                self._opened().keep_document(sha256, raw)
                return raw
            failure = IntegrityError(f"{source.url}: its bytes do not match its digest ({what})")
        assert failure is not None
        raise failure


def _age(checked: object) -> str:
    if not isinstance(checked, float):
        return "earlier"
    minutes = (time.time() - checked) / 60
    if minutes < 0:
        return "earlier"
    if minutes < 120:
        return f"{minutes:.0f} minutes ago"
    return f"{minutes / 60:.0f} hours ago" if minutes < 2880 else f"{minutes / 1440:.0f} days ago"
