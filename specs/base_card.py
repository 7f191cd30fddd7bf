"""Base cards: what a base is and where its bytes come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from specs.blobs import Blob, Source
from specs.file_names import BASE_ROUTING_FILE as BASE_ROUTING_FILE
from specs.file_names import CARD_FILE as CARD_FILE
from specs.file_names import WEIGHTS_FILE as WEIGHTS_FILE
from specs.model import Contract
from specs.names import Name, Sha256

Positive = Annotated[int, Field(ge=1)]


class BaseBlob(Contract):
    """One file of a base with the sources that may serve it, tried in order.

    The registry that holds the card may hold the blob too, and is then asked first.
    """

    blob: Blob
    sources: tuple[Source, ...] = ()


class ModuleShape(Contract):
    """The weight [out_features, in_features] of one linear module an adapter may attach to."""

    out_features: Positive
    in_features: Positive


class BaseCard(Contract):
    """A base in a catalogue. `files` always holds `weights.gguf`, and `routing.safetensors` where
    the base's hidden space has been calibrated for routing."""

    format: Literal[1] = 1
    name: Name
    description: Annotated[str, Field(min_length=1, max_length=2000)]
    license: Annotated[str, Field(min_length=1, max_length=200)]
    architecture: Literal["llama", "qwen2"]
    parameters: Positive
    layers: Positive
    hidden_size: Positive
    context_length: Positive
    kv_bytes_per_token: Positive
    """Bytes of key and value cache per token of context in the runtime's default precision."""
    resident_bytes: Positive
    """Bytes the weights take in memory once loaded."""
    fingerprint: Sha256
    modules: dict[str, ModuleShape]
    """Full module path (`model.layers.0.self_attn.q_proj`) -> shape; what adapters attach to."""
    files: Annotated[tuple[BaseBlob, ...], Field(min_length=1, max_length=4)]

    def file(self, path: str) -> BaseBlob:
        """The file stored as `path`; KeyError where the base has none."""
        for file in self.files:
            if file.blob.path == path:
                return file
        raise KeyError(path)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(f.blob.size for f in self.files)
