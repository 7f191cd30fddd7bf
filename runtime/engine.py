"""What a backend offers: run tokens through the base with some adapters active.

Everything above this protocol (sessions, sampling, chat format, routing) speaks numpy and knows no
backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Logits = Literal["last", "all", "none"]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder, as its GGUF file states it."""

    architecture: str
    layers: int
    hidden_size: int
    ffn_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    rope_theta: float
    norm_eps: float
    qkv_bias: bool


@dataclass(frozen=True)
class ActiveAdapter:
    """An adapter that takes part, by the slot it was loaded into, and its share."""

    slot: int
    weight: float = 1.0


@dataclass(frozen=True)
class Forward:
    """Result of one `Engine.forward`."""

    logits: F32 | None
    """float32 [1 or tokens, vocab_size]; None where none were asked for."""
    hidden: F32 | None
    """float32 [tokens, hidden_size]: the residual stream after the layer that was asked for."""


class Cache(Protocol):
    """Keys and values of one sequence."""

    @property
    def length(self) -> int:
        """Tokens held."""

    @property
    def capacity(self) -> int:
        """Tokens it can hold."""

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens."""


class Engine(Protocol):
    """A base model, resident, and the adapters that were loaded beside it."""

    @property
    def name(self) -> str:
        """Backend, device and precision, for people: `torch cpu int4`."""

    @property
    def config(self) -> ModelConfig:
        """The base's shape."""

    def new_cache(self, capacity: int) -> Cache:
        """Allocate keys and values for `capacity` tokens.

        Raises:
            DoesNotFitError: the base's context length is shorter, or memory is.
        """

    def forward(
        self,
        cache: Cache,
        tokens: Sequence[int],
        adapters: Sequence[ActiveAdapter] = (),
        *,
        logits: Logits = "last",
        hidden_layer: int | None = None,
    ) -> Forward:
        """Append `tokens` to `cache`; `adapters` act on exactly these tokens.

        Args:
            hidden_layer: 0-based layer whose output residual stream is returned.

        Raises:
            DoesNotFitError: the cache has no room for them.
            ValueError: there are no tokens, or no such layer.
        """

    def load_adapter(self, pack_dir: Path) -> int:
        """Load a pack folder's adapter and return its slot.

        Raises:
            IntegrityError: it does not attach to this base, or holds NaN or infinity.
        """

    def unload_adapter(self, slot: int) -> None:
        """Free a slot's memory."""

    def memory(self) -> dict[str, int]:
        """Bytes held, by part: `weights`, `adapters`, `cache`."""
