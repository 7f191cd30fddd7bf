"""An adapter between two formats: y = Wx + scale * B(Ax) for each of some modules.

Hu et al., "LoRA", arXiv 2106.09685. A pack has one rank and one scale; others may have one of each
per module, which is carried exactly: smaller ranks are filled up with zeros, and a scale that
differs from the pack's is multiplied into B.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.adapter import finite_tensors
from runtime.model import FUSED
from runtime.modules import PROJECTIONS, module_path
from specs.attach import SUFFIX_A, SUFFIX_B
from specs.base_card import BaseCard
from specs.errors import IntegrityError
from specs.manifest import Activation, AdapterInfo
from specs.names import Sha256
from specs.safetensors_header import read_header

MAX_RANK, MAX_ALPHA = 1024, 65536.0
"""What a manifest accepts (`specs.manifest.AdapterInfo`)."""
STORED = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Pair:
    """One module's update."""

    a: torch.Tensor
    """[rank, in_features]"""
    b: torch.Tensor
    """[out_features, rank]"""
    scale: float


@dataclass(frozen=True)
class Lora:
    """An adapter as it was read."""

    pairs: Mapping[str, Pair]
    """Module path -> update."""
    activation: Activation
    declared_base: str = ""
    """What its file says of the base it was made for; proves nothing."""
    fingerprint: Sha256 | None = None
    """Of the base it was made for, where mbpm wrote the file: proves it."""
    lost: tuple[str, ...] = ()
    """What the file says and a pack cannot, in words."""

    def pack(self) -> tuple[dict[str, torch.Tensor], AdapterInfo]:
        """The tensors of a pack's adapter file, in the smallest type that holds every value
        exactly, and what the manifest says of them.

        Raises:
            IntegrityError: a rank or scale that no manifest can hold.
        """
        rank = max(p.a.shape[0] for p in self.pairs.values())
        scale = Counter(p.scale for p in self.pairs.values()).most_common(1)[0][0]
        if not 1 <= rank <= MAX_RANK:
            raise IntegrityError(f"the adapter has rank {rank}, and a pack at most {MAX_RANK}")
        if not 0 < scale * rank <= MAX_ALPHA:
            raise IntegrityError(
                f"the adapter has scale {scale:g} at rank {rank}, and a pack's alpha lies between "
                f"0 and {MAX_ALPHA:g}"
            )
        tensors = {}
        for module, pair in sorted(self.pairs.items()):
            missing = rank - pair.a.shape[0]
            b = pair.b.float() if pair.scale == scale else pair.b.float() * (pair.scale / scale)
            tensors[module + SUFFIX_A] = torch.nn.functional.pad(pair.a.float(), (0, 0, 0, missing))
            tensors[module + SUFFIX_B] = torch.nn.functional.pad(b, (0, missing))
        dtype = next(d for d in STORED if all(_holds(d, t) for t in tensors.values()))
        stored = {name: t.to(dtype).contiguous() for name, t in tensors.items()}
        alpha = round(scale * rank, 9)
        if alpha / rank != scale:
            alpha = scale * rank
        info = AdapterInfo(
            activation=self.activation, rank=rank, alpha=alpha, modules=len(self.pairs)
        )
        return stored, info


def _holds(dtype: torch.dtype, values: torch.Tensor) -> bool:
    return bool(torch.equal(values.to(dtype).float(), values))


class LoraDelta:
    """A `Lora` applied as it stands, one module at a time; a `runtime.model.Delta`.

    Not how packs run: the plain formula, to compare with.
    """

    def __init__(self, lora: Lora, card: BaseCard) -> None:
        self.lora, self.card = lora, card

    def __call__(self, layer: int, group: str, x: torch.Tensor) -> torch.Tensor | None:
        """[..., in] -> [..., out] of a fused group; None where no module of it is adapted."""
        modules = [module_path(layer, p) for p in FUSED[group]]
        if not any(m in self.lora.pairs for m in modules):
            return None
        parts = []
        for module in modules:
            pair = self.lora.pairs.get(module)
            if pair is None:
                parts.append(x.new_zeros(*x.shape[:-1], self.card.modules[module].out_features))
            else:
                parts.append((x @ pair.a.float().T) @ pair.b.float().T * pair.scale)
        return torch.cat(parts, dim=-1)


def read_pack_lora(file: Path, info: AdapterInfo, fingerprint: Sha256) -> Lora:
    """A pack's own adapter.

    Args:
        file: its `adapter.safetensors`, the attach proof done.
        info: what the manifest says of it.
        fingerprint: of its base.
    """
    tensors = load_tensors(file)
    pairs = {
        name.removesuffix(SUFFIX_A): Pair(
            tensor, tensors[name.removesuffix(SUFFIX_A) + SUFFIX_B], info.scale
        )
        for name, tensor in tensors.items()
        if name.endswith(SUFFIX_A)
    }
    return Lora(pairs, info.activation, fingerprint=fingerprint)


def load_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file whose header keeps the format's rules.

    Raises:
        IntegrityError: it does not, or a number is NaN or infinite.
    """
    read_header(file)
    return finite_tensors(file)


Shapes = tuple[tuple[int, ...], tuple[int, ...]]
"""Of A and B."""


def check_shapes(shapes: Mapping[str, Shapes], card: BaseCard, where: Path) -> None:
    """Every pair fits a module of the base: known before any of them is loaded.

    Raises:
        IntegrityError: naming the first that does not, or there is none at all.
    """
    if not shapes:
        raise IntegrityError(f"{where}: the adapter attaches to nothing")
    for module, (a, b) in shapes.items():
        shape = card.modules.get(module)
        if shape is None:
            raise IntegrityError(f"{where}: module `{module}` does not exist in {card.name}")
        rank = a[0] if len(a) == 2 else 0
        if not 1 <= rank <= MAX_RANK:
            raise IntegrityError(
                f"{where}: A of module `{module}` has shape {list(a)}, and a rank lies between 1 "
                f"and {MAX_RANK}"
            )
        for half, found, expected in (
            ("A", a, (rank, shape.in_features)),
            ("B", b, (shape.out_features, rank)),
        ):
            if found != expected:
                raise IntegrityError(
                    f"{where}: {half} of module `{module}` has shape {list(found)}, and "
                    f"{card.name} needs {list(expected)}"
                )


def short_names(pairs: Mapping[str, Pair], card: BaseCard) -> list[str]:
    """PEFT's `target_modules`: projections where every layer has them, else whole paths."""
    names = {PROJECTIONS[p][0]: p for p in PROJECTIONS}
    kinds = {m.split(".", 3)[3] for m in pairs}
    every = {module_path(layer, names[k]) for layer in range(card.layers) for k in kinds}
    return sorted(names[k] for k in kinds) if every == set(pairs) else sorted(pairs)
