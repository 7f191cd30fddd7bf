"""The trainable adapter: low-rank pairs on every projection, as a `Delta` of the model."""

from __future__ import annotations

import math

import torch

from runtime.model import FUSED
from runtime.modules import module_path
from specs.attach import SUFFIX_A, SUFFIX_B
from specs.base_card import BaseCard


class TrainableAdapter:
    """A and B of every module, float32; B starts at zero, so training starts at the base.

    A is drawn as PEFT draws it: uniform in +-1 / sqrt(in_features) (Kaiming with a = sqrt 5).
    """

    def __init__(
        self, card: BaseCard, rank: int, alpha: float, seed: int, device: torch.device
    ) -> None:
        self.card, self.rank, self.scale = card, rank, alpha / rank
        generator = torch.Generator().manual_seed(seed)
        self.tensors: dict[str, torch.Tensor] = {}
        for module, shape in sorted(card.modules.items()):
            bound = 1 / math.sqrt(shape.in_features)
            a = torch.empty(rank, shape.in_features).uniform_(-bound, bound, generator=generator)
            b = torch.zeros(shape.out_features, rank)
            self.tensors[module + SUFFIX_A] = a.to(device).requires_grad_()
            self.tensors[module + SUFFIX_B] = b.to(device).requires_grad_()

    def __call__(self, layer: int, group: str, x: torch.Tensor) -> torch.Tensor | None:
        """The adapter's share of a fused projection; a `runtime.model.Delta`."""
        parts = []
        for projection in FUSED[group]:
            module = module_path(layer, projection)
            a, b = self.tensors[module + SUFFIX_A], self.tensors[module + SUFFIX_B]
            parts.append(((x @ a.T) * self.scale) @ b.T)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def snapshot(self) -> dict[str, torch.Tensor]:
        """A copy of the tensors on the CPU."""
        return {k: v.detach().cpu().clone() for k, v in self.tensors.items()}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take values saved by `snapshot`."""
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(tensors[name])
