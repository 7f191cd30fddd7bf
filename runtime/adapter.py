"""Low-rank adapters on the activation path: y = Wx + weight * scale * B(Ax), never merged.

Hu et al., "LoRA", arXiv 2106.09685. Projections that share an input share one pair of matrices:
their A stacked by rows, their B on a block diagonal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from runtime.model import FUSED
from runtime.modules import module_path
from specs.attach import SUFFIX_A, SUFFIX_B, check_attach
from specs.base_card import BaseCard
from specs.errors import IntegrityError
from specs.manifest import ADAPTER_FILE, MANIFEST_FILE, Manifest
from specs.safetensors_header import read_header

Pair = tuple[torch.Tensor, torch.Tensor]


class Adapter:
    """One adapter in memory: A [r, in] and B [out, r], scale folded in, per layer and group."""

    def __init__(self, pairs: dict[tuple[int, str], Pair]) -> None:
        self.pairs = pairs

    @classmethod
    def build(
        cls,
        tensors: Mapping[str, torch.Tensor],
        card: BaseCard,
        scale: float,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Adapter:
        """Fuse checked tensors, named as in an adapter file."""
        pairs: dict[tuple[int, str], Pair] = {}
        for layer in range(card.layers):
            for group, projections in FUSED.items():
                modules = [module_path(layer, p) for p in projections]
                present = [m for m in modules if m + SUFFIX_A in tensors]
                if not present:
                    continue
                blocks = []
                for module in modules:
                    rows = card.modules[module].out_features
                    half = tensors.get(module + SUFFIX_B)
                    blocks.append(torch.zeros(rows, 0) if half is None else half.float() * scale)
                a = torch.cat([tensors[m + SUFFIX_A].float() for m in present])
                b = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
                pairs[layer, group] = a.to(device, dtype), b.to(device, dtype)
        return cls(pairs)

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes + b.nbytes for a, b in self.pairs.values())


class ActiveDelta:
    """The sum of some adapters, each with its weight; a `runtime.model.Delta`."""

    def __init__(self, active: Sequence[tuple[Adapter, float]]) -> None:
        self.active = active

    def __call__(self, layer: int, group: str, x: torch.Tensor) -> torch.Tensor | None:
        total: torch.Tensor | None = None
        for adapter, weight in self.active:
            pair = adapter.pairs.get((layer, group))
            if pair is None:
                continue
            a, b = pair
            shrunk = x.to(a.dtype) @ a.T
            if weight != 1.0:
                shrunk = shrunk * weight
            part = (shrunk @ b.T).to(x.dtype)
            total = part if total is None else total + part
        return total


def load_adapter(
    pack_dir: Path, card: BaseCard, device: torch.device, dtype: torch.dtype
) -> Adapter:
    """Load a pack folder's adapter after the attach proof.

    Raises:
        IntegrityError: another base, a wrong name, shape or dtype, NaN or infinity.
    """
    manifest_file, file = pack_dir / MANIFEST_FILE, pack_dir / ADAPTER_FILE
    manifest = Manifest.parse(manifest_file.read_bytes(), str(manifest_file))
    check_attach(manifest, read_header(file), card, str(file))
    return Adapter.build(finite_tensors(file), card, manifest.adapter.scale, device, dtype)


def finite_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file whose header was checked.

    Raises:
        IntegrityError: it cannot be read, or a number is NaN or infinite.
    """
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise IntegrityError(f"{file}: {error}") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise IntegrityError(f"{file}: tensor `{name}` holds NaN or infinity")
    return tensors
