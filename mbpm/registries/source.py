"""What every registry can be asked, wherever it stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mbpm.fetch import AnySource
    from mbpm.offers import BaseOffer
    from mbpm.registries.query import Found, Query
    from specs.blobs import Blob
    from specs.index_line import IndexLine
    from specs.manifest import Manifest
    from specs.summary import PackSummary


class Source(Protocol):
    """A registry; also the origin of the packs it offers.

    Everything may raise NetworkError where it takes a server that cannot be reached.
    """

    @property
    def label(self) -> str:
        """What `InstalledPack.registry` records: `bundled`, a path or an address."""

    @property
    def stale(self) -> bool:
        """Whether it could not be asked what is new: what it does not know, it may have."""

    def check(self) -> None:
        """Raises NotFoundError where there is no registry at all."""

    def lines(self, name: str) -> Sequence[IndexLine]:
        """The versions of a pack, oldest first, yanked ones too.

        Raises:
            UsageError: not a pack's name.
            NotFoundError: no such pack, or no registry there at all.
            IntegrityError: a malformed index.
        """

    def prefetch(self, names: Sequence[str]) -> None:
        """Get ready for `lines` of these packs and of what they require."""

    def names(self) -> Sequence[str]:
        """The names of all packs, sorted."""

    def having(self, names: Sequence[str]) -> Sequence[str]:
        """Those of many names that are packs here."""

    def beginning(self, prefix: str, limit: int) -> Sequence[str]:
        """Some names of packs that begin so, sorted."""

    def search(self, query: Query, limit: int | None) -> Found:
        """The packs that a query means, the best ones first."""

    def summaries(self, names: Sequence[str]) -> Sequence[PackSummary]:
        """The packs of these names in short; without those that are not here."""

    def providers(self, name: str) -> Sequence[str]:
        """Packs of which some version provides or replaces a name, sorted."""

    def bases(self) -> Sequence[BaseOffer]:
        """All bases, by name."""

    def base(self, name: str) -> BaseOffer:
        """One base, without asking for an index.

        Raises:
            NotFoundError: there is none of that name.
            IntegrityError: its card is malformed.
        """

    def freeze(self) -> None:
        """Ask for no index from now on: what is cached is current."""

    def manifest(self, line: IndexLine) -> Manifest:
        """The manifest an index line names, its digest checked."""

    def document(self, blob: Blob) -> bytes:
        """The bytes of a small file of a pack, their digest checked."""

    def sources(self, blob: Blob, scratch: Path) -> list[AnySource]:
        """Where the bytes of a blob may be had, in the order to try."""
