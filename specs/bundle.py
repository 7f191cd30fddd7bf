"""`bundle.json`: what a bundle holds, packs and bases for a machine without network."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_serializer, model_validator

from specs.index_line import IndexLine
from specs.model import MAX_DOCUMENT_BYTES, Contract
from specs.names import Name, Sha256
from specs.registries import BUNDLED, is_url, normal_url

BUNDLE_FILE = "bundle.json"
MAX_BUNDLED_BYTES = 1 << 40
_DIRECTORY = re.compile(r"(?:/|[A-Za-z]:[\\/]|\\\\)[^\x00-\x1f\x7f]+")


def check_label(text: str) -> str:
    """Return `text` if it is what a home records as a registry.

    Raises:
        ValueError: it is not; a folder, an archive or another bundle is none.
    """
    if is_url(text):
        if normal_url(text) != text:
            raise ValueError(f"{text!r} is not an address in its normal form")
    elif text != BUNDLED and not _DIRECTORY.fullmatch(text):
        raise ValueError(f"{text[:200]!r} is no registry")
    return text


RegistryLabel = Annotated[str, Field(max_length=4000), AfterValidator(check_label)]
"""A registry as `InstalledPack.registry` names it; no folder, archive or other bundle."""


class BundledPack(Contract):
    """One version of a pack in a bundle. Its manifest is a blob of the bundle."""

    line: IndexLine
    """What the index of its registry said of it when the bundle was made."""
    registry: RegistryLabel | None = None
    """Where it came from, and where its upgrades come from; None where it was in no registry."""
    auto: bool = False
    """Whether it is there only because another pack of the bundle needs it."""

    @field_serializer("line")
    def _as_in_an_index(self, line: IndexLine) -> object:
        """Without the late fields that say nothing, as the line's own canonical form."""
        return json.loads(line.canonical())


class BundledBase(Contract):
    """One base in a bundle."""

    name: Name
    card: Sha256
    """The card's digest; the card is a blob of the bundle."""
    registry: RegistryLabel | None = None


class BundledBlob(Contract):
    """One file of a bundle: a manifest, a card, or a file of a pack or base."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0, le=MAX_BUNDLED_BYTES)]


class Bundle(Contract):
    """Everything in a bundle; sorted by name or digest, nothing twice."""

    format: Literal[1] = 1
    packs: tuple[BundledPack, ...] = ()
    bases: Annotated[tuple[BundledBase, ...], Field(min_length=1)]
    blobs: Annotated[tuple[BundledBlob, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _orderly(self) -> Bundle:
        _check_order("packs", [p.line.name for p in self.packs])
        _check_order("bases", [b.name for b in self.bases])
        _check_order("blobs", [b.sha256 for b in self.blobs])
        sizes = {b.sha256: b.size for b in self.blobs}
        documents = [(p.line.manifest, f"the manifest of {p.line.name}") for p in self.packs]
        documents += [(b.card, f"the card of base {b.name}") for b in self.bases]
        for digest, what in documents:
            if sizes.get(digest, MAX_DOCUMENT_BYTES + 1) > MAX_DOCUMENT_BYTES:
                raise ValueError(f"{what} is not among the blobs, or is too large")
        return self

    def pack(self, name: str) -> BundledPack | None:
        """The pack called `name`, if any."""
        return next((p for p in self.packs if p.line.name == name), None)


def _check_order(field: str, keys: Sequence[str]) -> None:
    if list(keys) != sorted(set(keys)):
        wrong = next(b for a, b in pairwise(keys) if a >= b)
        raise ValueError(f"`{field}`: {wrong[:64]!r} stands twice or out of order")
