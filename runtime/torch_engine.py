"""The torch engine: CPU and CUDA, the backend that needs nothing compiled."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from runtime.adapter import ActiveDelta, Adapter, load_adapter
from runtime.context import check_context, check_layer, check_room, no_memory
from runtime.engine import ActiveAdapter, Cache, Forward, Logits, ModelConfig
from runtime.gguf_file import model_config, open_gguf
from runtime.model import KVCache, Model
from runtime.quant import DequantLinear, Int4PackLinear
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.errors import UsageError

PREFILL_TOKENS = 256
"""A prompt is run in pieces of this many tokens, which bounds the memory of activations."""

Precision = Literal["packed", "float32"]


def pick_device(device: str) -> torch.device:
    """`auto` is CUDA where there is one.

    Raises:
        UsageError: CUDA is asked for and not there, or the name is none torch knows.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(
            "`--device cuda` was asked for, and torch sees no CUDA device",
            hint="`mbpm doctor` shows what it sees; `--device cpu` always works",
        )
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise UsageError(f"`{device}` is not a device (expected auto, cpu or cuda)")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"there is no device `{device}`: torch sees {torch.cuda.device_count()}")
    return found


class TorchEngine:
    """An `Engine` over PyTorch.

    `packed` keeps int4 and int8 codes in memory: PyTorch's int4 operator on the CPU, one matrix
    dequantised at a time on CUDA. `float32` keeps dequantised weights: the numerical reference.
    """

    def __init__(
        self,
        base_dir: Path,
        *,
        device: str = "auto",
        precision: Precision = "packed",
        layers: int | None = None,
    ) -> None:
        """Args:
        layers: load only the first ones, for hidden states alone: there are no logits then.
        """
        card_file = base_dir / CARD_FILE
        self.card = BaseCard.parse(card_file.read_bytes(), str(card_file))
        self.device = pick_device(device)
        file = open_gguf(base_dir / WEIGHTS_FILE)
        self.config: ModelConfig = model_config(file)
        self._adapters: dict[int, Adapter] = {}
        self._next_slot = 1
        self._caches: weakref.WeakSet[KVCache] = weakref.WeakSet()
        if precision == "float32":
            self.dtype = torch.float32
            self.model = Model(file, self.config, self.device, None, layers)
        elif self.device.type == "cpu":
            self.dtype = torch.float32
            self.model = Model(file, self.config, self.device, Int4PackLinear, layers)
        else:
            self.dtype = torch.float16
            make = partial(DequantLinear, device=self.device, dtype=self.dtype)
            self.model = Model(file, self.config, self.device, make, layers)
        self._cache_dtype = torch.float32 if precision == "float32" else torch.float16
        self.name = f"torch {self.device.type} {'int4' if precision == 'packed' else precision}"

    def new_cache(self, capacity: int) -> KVCache:
        """Allocate keys and values; see `Engine.new_cache`."""
        check_context(self.card, self.config.context_length, capacity)
        try:
            cache = KVCache(self.config, capacity, self._cache_dtype, self.device)
        except (RuntimeError, MemoryError):
            raise no_memory(self.card, capacity) from None
        self._caches.add(cache)
        return cache

    @torch.inference_mode()
    def forward(
        self,
        cache: Cache,
        tokens: Sequence[int],
        adapters: Sequence[ActiveAdapter] = (),
        *,
        logits: Logits = "last",
        hidden_layer: int | None = None,
    ) -> Forward:
        """Append tokens to the cache; see `Engine.forward`."""
        assert isinstance(cache, KVCache)
        check_room(cache, len(tokens))
        check_layer(hidden_layer, len(self.model.layers))
        active = [(self._adapters[a.slot], a.weight) for a in adapters if a.weight != 0.0]
        delta = ActiveDelta(active) if active else None
        ids = torch.tensor([list(tokens)], dtype=torch.long)
        scores, hidden = [], []
        for start in range(0, len(tokens), PREFILL_TOKENS):
            piece = ids[:, start : start + PREFILL_TOKENS]
            x, captured = self.model.forward(piece, cache, delta, hidden_layer)
            if captured is not None:
                hidden.append(captured[0].float().cpu().numpy())
            if logits == "all":
                scores.append(self.model.logits(x[0]).cpu().numpy())
        if logits == "last":
            scores.append(self.model.logits(x[0, -1:]).cpu().numpy())
        return Forward(
            np.concatenate(scores) if scores else None,
            np.concatenate(hidden) if hidden else None,
        )

    def load_adapter(self, pack_dir: Path) -> int:
        """Load a pack's adapter; see `Engine.load_adapter`."""
        return self.add_adapter(load_adapter(pack_dir, self.card, self.device, self.dtype))

    def add_adapter(self, adapter: Adapter) -> int:
        """Give an adapter that is in memory already a slot."""
        slot = self._next_slot
        self._next_slot += 1
        self._adapters[slot] = adapter
        return slot

    def unload_adapter(self, slot: int) -> None:
        """Free a slot's memory."""
        del self._adapters[slot]

    def memory(self) -> dict[str, int]:
        """Bytes held, by part."""
        return {
            "weights": self.model.nbytes,
            "adapters": sum(a.nbytes for a in self._adapters.values()),
            "cache": sum(c.nbytes for c in self._caches),
        }
