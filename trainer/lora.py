"""The trainable adapter: low-rank pairs beside the base's projections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from runtime.model import FUSED
from runtime.modules import PROJECTIONS, module_path
from specs.attach import SUFFIX_A, SUFFIX_B
from specs.base_card import BaseCard


@dataclass(frozen=True)
class PairOf:
    """One projection's share of a fused matrix."""

    a: torch.Tensor  # float32 [r, in]
    b: torch.Tensor  # float32 [out, r]
    rows: slice
    """Rows of the fused matrix it adds to."""
    scale: float
    names: tuple[str, str]
    """Of A and B."""


class TrainableAdapter:
    """A and B of every module, float32 views of one vector; B starts at zero, so training starts
    at the base.

    `kaiming` draws A as PEFT does: uniform in +-1 / sqrt(in_features). `gaussian` has the same
    variance. `orthogonal` has orthogonal rows of the length that these have in the mean.
    """

    def __init__(
        self,
        card: BaseCard,
        rank: int,
        scale: float,
        seed: int,
        device: torch.device,
        projections: Sequence[str] = tuple(PROJECTIONS),
        init: str = "kaiming",
    ) -> None:
        self.card, self.rank, self.scale = card, rank, scale
        chosen = {module_path(i, p) for i in range(card.layers) for p in projections}
        generator = torch.Generator().manual_seed(seed)
        drawn: dict[str, torch.Tensor] = {}
        for module, shape in sorted(card.modules.items()):
            if module not in chosen:
                continue
            drawn[module + SUFFIX_A] = _drawn(rank, shape.in_features, init, generator)
            drawn[module + SUFFIX_B] = torch.zeros(shape.out_features, rank)
        self._pairs: dict[tuple[int, str], list[PairOf]] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        self.flat: dict[str, torch.Tensor] = {}
        """All A and all B, each as one float32 vector with a gradient to match."""
        for suffix in (SUFFIX_A, SUFFIX_B):
            names = [name for name in drawn if name.endswith(suffix)]
            flat = torch.cat([drawn[name].reshape(-1) for name in names]).to(device)
            flat.grad = torch.zeros_like(flat)
            self.flat[suffix] = flat
            at = 0
            for name in names:
                size = drawn[name].numel()
                view = flat[at : at + size].view(drawn[name].shape)
                self.tensors[name] = view.requires_grad_()
                at += size

    def pairs(self, layer: int, group: str) -> list[PairOf]:
        """The pairs that add to a fused projection."""
        if (known := self._pairs.get((layer, group))) is not None:
            return known
        found, at = [], 0
        for projection in FUSED[group]:
            module = module_path(layer, projection)
            rows = self.card.modules[module].out_features
            if module + SUFFIX_A in self.tensors:
                a, b = self.tensors[module + SUFFIX_A], self.tensors[module + SUFFIX_B]
                names = (module + SUFFIX_A, module + SUFFIX_B)
                found.append(PairOf(a, b, slice(at, at + rows), self.scale, names))
            at += rows
        self._pairs[layer, group] = found
        return found

    @torch.no_grad()
    def rounded(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """A, and B scaled, by name, in another type."""
        made = {}
        for suffix, scale in ((SUFFIX_A, 1.0), (SUFFIX_B, self.scale)):
            flat, at = (self.flat[suffix] * scale).to(dtype), 0
            for name, tensor in self.tensors.items():
                if name.endswith(suffix):
                    made[name] = flat[at : at + tensor.numel()].view(tensor.shape)
                    at += tensor.numel()
        return made

    def of_layer(self, layer: int) -> list[torch.Tensor]:
        """A and B of every pair of a layer, group after group."""
        return [t for group in FUSED for p in self.pairs(layer, group) for t in (p.a, p.b)]

    def add_gradients(self, vector: torch.Tensor) -> None:
        """Add to the gradients of `flat`: those of `tensors` as one vector, in their order."""
        a, b = self.flat.values()
        for flat, part in ((a, vector[: a.numel()]), (b, vector[a.numel() :])):
            assert flat.grad is not None
            flat.grad += part

    def values(self) -> dict[str, torch.Tensor]:
        """The tensors on the CPU, as they are until the next step."""
        return {k: v.detach().cpu() for k, v in self.tensors.items()}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take such values."""
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(tensors[name])


def _drawn(rank: int, columns: int, init: str, generator: torch.Generator) -> torch.Tensor:
    """float32 [rank, columns] of variance 1 / (3 columns)."""
    bound = 1 / math.sqrt(columns)
    a = torch.empty(rank, columns)
    if init == "kaiming":
        return a.uniform_(-bound, bound, generator=generator)
    a.normal_(0.0, bound / math.sqrt(3), generator=generator)
    if init == "orthogonal" and rank <= columns:
        a = torch.linalg.qr(a.T).Q.T.contiguous() / math.sqrt(3)
    return a
