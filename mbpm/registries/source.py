"""What every registry can be asked, wherever it stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mbpm.fetch import AnySource
    from mbpm.offers import BaseOffer
    from specs.blobs import Blob
    from specs.index_line import IndexLine
    from specs.manifest import Manifest


class Source(Protocol):
    """A registry; also the origin of the packs it offers."""

    @property
    def label(self) -> str:
        """What `InstalledPack.registry` records: `bundled`, a path or an address."""

    def check(self) -> None:
        """Raises NotFoundError where there is no registry at all."""

    def lines(self, name: str) -> Sequence[IndexLine]:
        """The versions of a pack, oldest first, yanked ones too.

        Raises:
            UsageError: not a pack's name.
            NotFoundError: no such pack, or no registry there at all.
            IntegrityError: a malformed index.
        """

    def names(self) -> Sequence[str]:
        """The names of all packs, sorted."""

    def providers(self, name: str) -> Sequence[str]:
        """Packs of which some version provides or replaces a name, sorted."""

    def bases(self) -> Sequence[BaseOffer]:
        """All bases, by name."""

    def manifest(self, line: IndexLine) -> Manifest:
        """The manifest an index line names, its digest checked."""

    def sources(self, blob: Blob, scratch: Path) -> list[AnySource]:
        """Where the bytes of a blob may be had, in the order to try."""
