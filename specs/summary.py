"""The summary of a registry: one line per pack, in pages named by their digest.

With it a client lists, searches and finds out what changed without reading every index file.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from specs.described import BaseRef
from specs.index_line import MAX_COUNT, Count, EvalSummary, OneLine
from specs.model import MAX_DOCUMENT_BYTES, Contract
from specs.names import Name, Sha256
from specs.versions import VersionText

MAX_INDEX_BYTES = 64 * 1024 * 1024
"""The largest index file of one pack."""
MAX_PAGE_BYTES = 16 * 1024 * 1024
MAX_PAGES = 1 << 15
MAX_BASES = 256
PAGE_PACKS = 128
"""How many packs a page holds on average, at most."""

PageSize = Annotated[int, Field(ge=0, le=MAX_PAGE_BYTES)]
IndexSize = Annotated[int, Field(ge=1, le=MAX_INDEX_BYTES)]
CardSize = Annotated[int, Field(ge=1, le=MAX_DOCUMENT_BYTES)]


class PackSummary(Contract):
    """One pack: its newest version in short, and its index file by digest.

    The newest version is the newest release that is not yanked; where there is none, the newest
    pre-release that is not yanked; else the newest of all.
    """

    format: Literal[1] = 1
    name: Name
    version: VersionText
    domain: Name
    description: Annotated[str, Field(min_length=1, max_length=2000)]
    license: Annotated[str, Field(min_length=1, max_length=200)]
    base: BaseRef
    size: Count
    """Bytes of the newest version's blobs."""
    published: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
    evals: EvalSummary | None = None
    publisher: OneLine = ""
    deprecated: OneLine = ""
    yanked: bool = False
    """Whether every version is."""
    provides: tuple[Name, ...] = ()
    """Names that any version provides or replaces, sorted."""
    index: tuple[Sha256, IndexSize]
    """Digest and size of the index file."""

    _late: ClassVar[tuple[str, ...]] = ("publisher", "deprecated", "yanked", "provides")


class SummaryRoot(Contract):
    """`summary/root.json`: the pages and base cards of one moment."""

    format: Literal[1] = 1
    packs: Annotated[int, Field(ge=0, le=MAX_COUNT)]
    """How many packs all pages list."""
    pages: Annotated[tuple[tuple[Sha256, PageSize], ...], Field(min_length=1, max_length=MAX_PAGES)]
    """Digest and size of every page; their number is a power of two."""
    bases: Annotated[dict[Name, tuple[Sha256, CardSize]], Field(max_length=MAX_BASES)] = {}
    """Name -> digest and size of `bases/NAME.json`."""
    base_files: Annotated[tuple[Sha256, ...], Field(max_length=4 * MAX_BASES)] = ()
    """Files of bases that the registry itself has; others come from their cards' sources."""

    _late: ClassVar[tuple[str, ...]] = ("base_files",)

    @field_validator("pages")
    @classmethod
    def _power_of_two(cls, pages: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
        if len(pages) & (len(pages) - 1):
            raise ValueError(f"{len(pages)} pages are not a power of two")
        return pages


def page_of(name: str, pages: int) -> int:
    """The number of the page that lists a pack: the first bits of the SHA-256 of its name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") * pages >> 32


def page_count(packs: int) -> int:
    """How many pages so many packs take."""
    pages = 1
    while pages * PAGE_PACKS < packs and pages < MAX_PAGES:
        pages *= 2
    return pages
