"""The registry index: one JSON line per version, immutable but for `yanked`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from specs.described import Described, Relations
from specs.manifest import BaseRef
from specs.model import Contract
from specs.names import Name, Sha256

UrlText = Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=2000)]


class EvalSummary(Contract):
    """The main metric on held-out data, for lists and plans."""

    metric: str
    base: float
    pack: float
    higher_is_better: bool
    rows: int


class IndexLine(Described, Relations):
    """One version of one pack, with all that resolving and searching needs."""

    format: Literal[1] = 1
    base: BaseRef
    manifest: Sha256
    """SHA-256 of manifest.json, itself stored as a blob."""
    manifest_size: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=1)]
    """Bytes of all blobs together, without the manifest."""
    evals: EvalSummary | None = None
    published: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
    forced: tuple[str, ...] = ()
    """The gates that failed and were overridden with `--force`, in words."""
    yanked: bool = False


class RegistryConfig(Contract):
    """`config.json` at the root of a registry."""

    format: Literal[1] = 1
    name: Name
    mirrors: Annotated[tuple[UrlText, ...], Field(max_length=16)] = ()
    """Addresses of trees that hold the same `blobs/`; what they send is checked like all else."""

    _late: ClassVar[tuple[str, ...]] = ("mirrors",)
