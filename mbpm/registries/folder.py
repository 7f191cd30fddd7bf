"""A registry in a directory: the bundled one, a checkout, a mounted share. Read in place.

Its summary is used where it has one; else every index file is read.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.offers import BaseOffer
from mbpm.registries.query import Found, Query, best
from registry_index.summary import Summary, parse_page, read_summary, summary_of
from registry_index.tree import BASES_DIR, INDEX_DIR, Registry, index_path, read_file
from specs.blobs import FileSource
from specs.errors import IntegrityError, MbpmError, NotFoundError
from specs.model import MAX_DOCUMENT_BYTES
from specs.registries import BUNDLED
from specs.summary import PackSummary

if TYPE_CHECKING:
    from mbpm.fetch import AnySource
    from specs.base_card import BaseBlob, BaseCard
    from specs.blobs import Blob
    from specs.index_line import IndexLine
    from specs.manifest import Manifest

__all__ = ["BUNDLED", "FolderRegistry"]


class FolderRegistry:
    """A registry directory as a source."""

    def __init__(self, registry: Registry, label: str | None = None) -> None:
        self.registry = registry
        self.label = label or str(registry.root.absolute())

    @property
    def stale(self) -> bool:
        """As `Source.stale`: it is read in place."""
        return False

    def check(self) -> None:
        """As `Source.check`."""
        _ = self.registry.name

    def lines(self, name: str) -> Sequence[IndexLine]:
        """As `Source.lines`."""
        return self.registry.lines(name)

    def prefetch(self, names: Sequence[str]) -> None:
        """As `Source.prefetch`: everything is here."""

    def names(self) -> Sequence[str]:
        """As `Source.names`."""
        return self._names

    @cached_property
    def _names(self) -> list[str]:
        return self.registry.names()

    def having(self, names: Sequence[str]) -> Sequence[str]:
        """As `Source.having`."""
        self.check()
        index = self.registry.root / INDEX_DIR
        return [name for name in names if (index / index_path(name)).is_file()]

    def beginning(self, prefix: str, limit: int) -> Sequence[str]:
        """As `Source.beginning`."""
        names = self._names
        start = bisect.bisect_left(names, prefix)
        stop = bisect.bisect_left(names, prefix + "\x7f")
        return names[start : min(stop, start + limit)]

    # listing and searching

    @cached_property
    def _summary(self) -> Summary | None:
        """Its summary; a damaged one, or one of a newer format, is as good as none."""
        self.check()
        try:
            return read_summary(self.registry)
        except MbpmError:
            return None

    def _all(self, words: Sequence[str] = ()) -> Iterator[PackSummary]:
        """Every pack that can be read; with ASCII `words`, at least those that hold them all."""
        if self._summary is not None:
            try:
                yield from self._listed(self._summary, [w.encode() for w in words])
                return
            except IntegrityError:
                self._summary = None
        for name in self._names:
            if (found := self._walked(name)) is not None:
                yield found

    def _listed(self, summary: Summary, words: Sequence[bytes]) -> list[PackSummary]:
        found: list[PackSummary] = []
        pages = len(summary.root.pages)
        for number, raw in summary.raw_pages():
            # accents hide a word from a look at the bytes
            lines = raw.splitlines(keepends=True)
            kept = [x for x in lines if not x.isascii() or all(w in x.lower() for w in words)]
            where = str(summary.folder / summary.root.pages[number][0])
            found += parse_page(b"".join(kept), number, pages, where).packs
        return found

    def _walked(self, name: str) -> PackSummary | None:
        # one damaged index file must not hide all other packs
        with suppress(IntegrityError, NotFoundError):
            raw = self.registry.raw_index(name)
            return summary_of(name, self.registry.parse(raw, name), raw)
        return None

    def search(self, query: Query, limit: int | None) -> Found:
        """As `Source.search`."""
        words = [word for term in query.words for word in term if word.isascii()]
        return best(self._all(words), query, limit)

    def summaries(self, names: Sequence[str]) -> Sequence[PackSummary]:
        """As `Source.summaries`."""
        return [found for name in names if (found := self._walked(name)) is not None]

    def providers(self, name: str) -> Sequence[str]:
        """As `Source.providers`."""
        return self._providers.get(name, [])

    @cached_property
    def _providers(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for pack in self._all(["provides"]):
            for other in pack.provides:
                found.setdefault(other, []).append(pack.name)
        return found

    # bases

    def bases(self) -> Sequence[BaseOffer]:
        """As `Source.bases`; a card that is not sound is left out."""
        return self._bases

    @cached_property
    def _bases(self) -> list[BaseOffer]:
        offers = []
        for name in self.registry.base_names():
            with suppress(MbpmError):
                offers.append(self._offer(self.registry.base(name)))
        return offers

    def _offer(self, card: BaseCard) -> BaseOffer:
        def sources(file: BaseBlob) -> list[AnySource]:
            own = self.registry.blob_path(file.blob.sha256).absolute()
            first = [FileSource(path=str(own))] if own.is_file() else []
            return [*first, *file.sources]

        return BaseOffer(card, self.label, (self.registry.root / BASES_DIR).absolute(), sources)

    # bytes

    def base(self, name: str) -> BaseOffer:
        """As `Source.base`."""
        return self._offer(self.registry.base(name))

    def freeze(self) -> None:
        """As `Source.freeze`: nothing is cached."""

    def manifest(self, line: IndexLine) -> Manifest:
        """As `Source.manifest`."""
        from specs.manifest import Manifest

        what = f"the manifest of {line.name} {line.version}"
        file = self.registry.blob_path(line.manifest)
        return Manifest.parse(self._read(line.manifest, what, "in the index"), str(file))

    def document(self, blob: Blob) -> bytes:
        """As `Source.document`."""
        return self._read(blob.sha256, blob.path, "in the manifest")

    def _read(self, sha256: str, what: str, where: str) -> bytes:
        file = self.registry.blob_path(sha256)
        try:
            raw = read_file(file, MAX_DOCUMENT_BYTES)
        except FileNotFoundError:
            raise NotFoundError(f"{file}: the registry lacks {what}") from None
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise IntegrityError(f"{file}: its bytes do not match the digest {where}")
        return raw

    def sources(self, blob: Blob, scratch: Path) -> list[AnySource]:
        """The registry's own copy."""
        return [FileSource(path=str(self.registry.blob_path(blob.sha256).absolute()))]
