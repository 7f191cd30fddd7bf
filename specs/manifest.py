"""`manifest.json`: what a pack is. Its digest is the pack's identity everywhere."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from specs.blobs import Blob
from specs.described import BaseRef as BaseRef
from specs.described import Described, Relations
from specs.file_names import ADAPTER_FILE as ADAPTER_FILE
from specs.file_names import EVALS_FILE as EVALS_FILE
from specs.file_names import KNOWLEDGE_FILE as KNOWLEDGE_FILE
from specs.file_names import LICENSE_FILE as LICENSE_FILE
from specs.file_names import MANIFEST_FILE as MANIFEST_FILE
from specs.file_names import README_FILE as README_FILE
from specs.file_names import ROUTING_FILE as ROUTING_FILE
from specs.model import Contract
from specs.names import Sha256

Activation = Literal["answer", "full"]
"""Where an adapter acts: from the start of the assistant's turn, or on every token."""

PACK_FILES = frozenset(
    [ADAPTER_FILE, ROUTING_FILE, EVALS_FILE, README_FILE, LICENSE_FILE, KNOWLEDGE_FILE]
)
"""Every file a pack may hold beside its manifest."""
REQUIRED_FILES = frozenset([ADAPTER_FILE, ROUTING_FILE, EVALS_FILE, README_FILE])

ShortText = Annotated[str, Field(max_length=2000)]


class AdapterInfo(Contract):
    """The low-rank update y = Wx + (alpha / rank) * B(Ax), applied on the activation path.

    Hu et al., "LoRA", arXiv 2106.09685.
    """

    activation: Activation
    rank: Annotated[int, Field(ge=1, le=1024)]
    alpha: Annotated[float, Field(gt=0, le=65536)]
    modules: Annotated[int, Field(ge=1)]
    """How many modules of the base it attaches to: part of the attach proof."""

    @property
    def scale(self) -> float:
        """The factor on B(Ax)."""
        return self.alpha / self.rank


class DataSource(Contract):
    """Where training data came from, and under which licence."""

    name: ShortText
    version: ShortText = ""
    sha256: Sha256 | None = None
    license: ShortText
    note: ShortText = ""


class TokenScore(Contract):
    """A token and its natural-log probability."""

    id: Annotated[int, Field(ge=0)]
    logprob: float


class Canary(Contract):
    """A prompt with the most likely next tokens, for the base alone and with the pack.

    `mbpm verify --deep` replays it: proof that the pack that runs is the one that was published.
    """

    prompt: Annotated[str, Field(min_length=1, max_length=2000)]
    """One user message; the base's chat format is put around it."""
    base: Annotated[tuple[TokenScore, ...], Field(min_length=1, max_length=20)]
    pack: Annotated[tuple[TokenScore, ...], Field(min_length=1, max_length=20)]
    tolerance: Annotated[float, Field(gt=0, le=5)] = 0.5
    """How far a log-probability may lie from the recorded one, in nats."""


class PackDescription(Described, Relations):
    """What an author says of a pack, and a manifest repeats."""

    base: BaseRef
    adapter: AdapterInfo
    sources: tuple[DataSource, ...] = ()
    recipe: Sha256 | None = None
    """Digest of the recipe that made it, if one did."""
    canaries: tuple[Canary, ...] = ()


class Manifest(PackDescription):
    """Everything that identifies one version of a pack."""

    format: Literal[1] = 1
    blobs: Annotated[tuple[Blob, ...], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _files(self) -> Manifest:
        names = [b.path for b in self.blobs]
        if len(set(names)) != len(names):
            raise ValueError("two blobs have the same path")
        if unknown := sorted(set(names) - PACK_FILES):
            raise ValueError(f"blob {unknown[0]!r} is not a file of a pack")
        if missing := sorted(REQUIRED_FILES - set(names)):
            raise ValueError(f"blob {missing[0]!r} is missing")
        return self

    def blob(self, path: str) -> Blob:
        """The blob stored as `path`; KeyError where the pack has none."""
        for blob in self.blobs:
            if blob.path == path:
                return blob
        raise KeyError(path)

    @property
    def size(self) -> int:
        """Bytes of all blobs together."""
        return sum(b.size for b in self.blobs)
