"""Adapters with random weights, and pack folders around them, for the runtime's tests."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from specs.attach import SUFFIX_A, SUFFIX_B
from specs.base_card import BaseCard
from specs.blobs import Blob
from specs.manifest import (
    ADAPTER_FILE,
    EVALS_FILE,
    MANIFEST_FILE,
    README_FILE,
    ROUTING_FILE,
    Activation,
    AdapterInfo,
    BaseRef,
    Manifest,
)


def random_adapter(card: BaseCard, rank: int, seed: int) -> dict[str, torch.Tensor]:
    """float16 pairs for every module, large enough to change what the model says."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module, shape in card.modules.items():
        a = torch.randn(rank, shape.in_features, generator=generator) * shape.in_features**-0.5
        b = torch.randn(shape.out_features, rank, generator=generator) * 0.1
        tensors[module + SUFFIX_A], tensors[module + SUFFIX_B] = a.half(), b.half()
    return tensors


def write_pack(
    folder: Path,
    card: BaseCard,
    tensors: dict[str, torch.Tensor],
    rank: int,
    alpha: float,
    activation: Activation,
) -> Path:
    """Write a pack folder whose only real blob is the adapter."""
    folder.mkdir(parents=True)
    save_file(tensors, folder / ADAPTER_FILE)
    for name in (ROUTING_FILE, EVALS_FILE, README_FILE):
        (folder / name).write_bytes(b"")
    manifest = Manifest(
        name="p",
        version="1.0.0",
        domain="p",
        description="random weights",
        license="MIT",
        base=BaseRef(name=card.name, fingerprint=card.fingerprint),
        adapter=AdapterInfo(
            activation=activation,
            rank=rank,
            alpha=alpha,
            modules=sum(n.endswith(SUFFIX_A) for n in tensors),
        ),
        blobs=tuple(Blob.of_file(f) for f in sorted(folder.iterdir())),
    )
    (folder / MANIFEST_FILE).write_bytes(manifest.canonical())
    return folder
