"""The registry index: one JSON line per version, immutable but for `yanked` and `deprecated`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from specs.described import BaseRef, Described, Relations
from specs.model import MAX_DOCUMENT_BYTES, Contract
from specs.names import Name, Sha256

if TYPE_CHECKING:
    from specs.manifest import Manifest

UrlText = Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=2000)]
MAX_ONE_LINE, MAX_FORCED = 500, 20
MAX_COUNT = (1 << 53) - 1
"""The largest whole number that every reader of JSON keeps exactly."""

Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]


def check_one_line(text: str) -> str:
    """Return `text` if it is short and free of line breaks and other control characters.

    Raises:
        ValueError: it is not.
    """
    if len(text) > MAX_ONE_LINE:
        raise ValueError(f"is longer than {MAX_ONE_LINE} characters")
    if not text.isprintable():
        raise ValueError("holds a line break or another character that cannot be printed")
    return text


OneLine = Annotated[str, AfterValidator(check_one_line)]


class EvalSummary(Contract):
    """The main metric on held-out data, for lists and plans."""

    metric: Annotated[str, Field(max_length=200)]
    base: float
    pack: float
    higher_is_better: bool
    rows: Annotated[int, Field(ge=0, le=MAX_COUNT)]


class IndexLine(Described, Relations):
    """One version of one pack, with all that resolving and searching needs."""

    format: Literal[1] = 1
    base: BaseRef
    manifest: Sha256
    """SHA-256 of manifest.json, itself stored as a blob."""
    manifest_size: Annotated[int, Field(ge=1, le=MAX_DOCUMENT_BYTES)]
    size: Count
    """Bytes of all blobs together, without the manifest."""
    evals: EvalSummary | None = None
    published: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
    publisher: OneLine = ""
    """Who published it, as the registry says."""
    forced: Annotated[
        tuple[Annotated[str, Field(max_length=2000)], ...], Field(max_length=MAX_FORCED)
    ] = ()
    """The gates that failed and were overridden, with `--force` or by a laxer bound in pack.toml,
    in words."""
    yanked: bool = False
    """Whether it is only for those who have it in a lock or installed."""
    deprecated: OneLine = ""
    """Why it should not be used any more, and what to use instead."""

    _late: ClassVar[tuple[str, ...]] = (*Relations._late, "publisher", "deprecated")

    def disagreement(self, manifest: Manifest) -> str | None:
        """A field that is not what the manifest says; None where there is none."""
        fields = (*Described.model_fields, *Relations.model_fields, "base", "size")
        return next((f for f in fields if getattr(self, f) != getattr(manifest, f)), None)


class RegistryConfig(Contract):
    """`config.json` at the root of a registry."""

    format: Literal[1] = 1
    name: Name
    mirrors: Annotated[tuple[UrlText, ...], Field(max_length=16)] = ()
    """Addresses of trees that hold the same `blobs/`; what they send is checked like all else."""

    _late: ClassVar[tuple[str, ...]] = ("mirrors",)
