"""The reference with keys and values rounded as the native engine holds them.

What rounding keys and values costs by itself, apart from everything else an engine rounds.
"""

from __future__ import annotations

from typing import Literal

import torch

from runtime.model import KVCache
from runtime.torch_engine import TorchEngine

Kind = Literal["int8", "float16"]


class RoundedCache(KVCache):
    """Keys and values of one sequence, float32 numbers that the kind can hold."""

    def __init__(self, engine: TorchEngine, capacity: int, kind: Kind) -> None:
        super().__init__(engine.config, capacity, torch.float32, engine.device)
        self.kind, self.wide_keys = kind, engine.config.qkv_bias

    def append(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Round what is new and store it; see `KVCache.append`."""
        if self.kind == "float16":
            return super().append(layer, k.half().float(), v.half().float())
        turn = hadamard(k.shape[-1])  # its own inverse
        keys = k.half().float() if self.wide_keys else _round8(k @ turn) @ turn
        return super().append(layer, keys, _round8(v))


def hadamard(size: int) -> torch.Tensor:
    """The orthonormal Hadamard matrix of a power of two."""
    found = torch.ones(1, 1)
    while len(found) < size:
        found = torch.kron(found, torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
    turned: torch.Tensor = found / size**0.5
    return turned


def _round8(x: torch.Tensor) -> torch.Tensor:
    """To whole multiples of each row's largest entry over 127."""
    scale = (x.abs().amax(dim=-1, keepdim=True) / 127).clamp_min(1e-30)
    rounded: torch.Tensor = (x / scale).round() * scale
    return rounded
