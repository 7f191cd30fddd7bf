"""A registry in a directory: the bundled one, a checkout, a mounted share. Read in place."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.offers import BaseOffer
from registry_index.tree import Registry
from specs.blobs import FileSource
from specs.errors import IntegrityError, NotFoundError
from specs.manifest import Manifest
from specs.model import MAX_DOCUMENT_BYTES

if TYPE_CHECKING:
    from mbpm.fetch import AnySource
    from specs.base_card import BaseBlob, BaseCard
    from specs.blobs import Blob
    from specs.index_line import IndexLine

BUNDLED = "bundled"


class FolderRegistry:
    """A registry directory as a source."""

    def __init__(self, registry: Registry, label: str | None = None) -> None:
        self.registry = registry
        self.label = label or str(registry.root.absolute())

    def check(self) -> None:
        """As `Source.check`."""
        _ = self.registry.name

    def lines(self, name: str) -> Sequence[IndexLine]:
        """As `Source.lines`."""
        return self.registry.lines(name)

    def names(self) -> Sequence[str]:
        """As `Source.names`."""
        return self.registry.names()

    def providers(self, name: str) -> Sequence[str]:
        """As `Source.providers`."""
        return self._providers.get(name, [])

    @cached_property
    def _providers(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.registry.names():
            for line in self.registry.lines(name):
                for other in (*line.provides, *line.replaces):
                    if name not in found.setdefault(other, []):
                        found[other].append(name)
        return found

    def bases(self) -> Sequence[BaseOffer]:
        """As `Source.bases`."""
        return self._bases

    @cached_property
    def _bases(self) -> list[BaseOffer]:
        return [self._offer(card) for card in self.registry.bases()]

    def _offer(self, card: BaseCard) -> BaseOffer:
        def sources(file: BaseBlob) -> list[AnySource]:
            own = self.registry.blob_path(file.blob.sha256).absolute()
            first = [FileSource(path=str(own))] if own.is_file() else []
            return [*first, *file.sources]

        return BaseOffer(card, self.label, (self.registry.root / "bases").absolute(), sources)

    def manifest(self, line: IndexLine) -> Manifest:
        """As `Source.manifest`."""
        file = self.registry.blob_path(line.manifest)
        try:
            with file.open("rb") as stream:
                raw = stream.read(MAX_DOCUMENT_BYTES + 1)
        except FileNotFoundError:
            raise NotFoundError(
                f"{file}: the registry lacks the manifest of {line.name} {line.version}"
            ) from None
        if hashlib.sha256(raw).hexdigest() != line.manifest:
            raise IntegrityError(f"{file}: its bytes do not match the digest in the index")
        return Manifest.parse(raw, str(file))

    def sources(self, blob: Blob, scratch: Path) -> list[AnySource]:
        """The registry's own copy."""
        return [FileSource(path=str(self.registry.blob_path(blob.sha256).absolute()))]
