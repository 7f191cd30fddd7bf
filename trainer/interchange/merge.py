"""A base with a pack merged into it: dequantised, added, quantised again. For other programs: mbpm
itself never merges, because quantising again changes what every answer is made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from runtime.engine import ModelConfig
from runtime.gguf_file import GGUFFile, GGUFTensor
from specs.manifest import Manifest
from trainer.gguf_write import FILE_TYPES, quantized, to_file_rows, write_gguf
from trainer.interchange.gguf_adapter import tensor_names
from trainer.interchange.lora import Lora

TYPES = tuple(FILE_TYPES)


def write_merged(
    base: GGUFFile, config: ModelConfig, lora: Lora, manifest: Manifest, kind: str, file: Path
) -> int:
    """Write the whole model; returns how many matrices were quantised anew.

    Args:
        kind: GGUF type of the matrices that the adapter changes, of TYPES; all others stay as they
            are, byte for byte.
    """
    metadata = {
        **base.metadata,
        "general.name": f"{manifest.base.name} with {manifest.name} {manifest.version}",
        "general.description": manifest.description,
        "general.license": manifest.license,
        "general.file_type": FILE_TYPES[kind],
    }
    write_gguf(file, config.architecture, metadata, _tensors(base, config, lora, kind))
    return len(lora.pairs)


def _tensors(base: GGUFFile, config: ModelConfig, lora: Lora, kind: str) -> Iterator[GGUFTensor]:
    modules = tensor_names(config)
    for name, tensor in base.tensors.items():
        pair = lora.pairs.get(modules.get(name, ""))
        if pair is None:
            yield tensor
            continue
        delta = (pair.b.float() @ pair.a.float() * pair.scale).numpy()
        order = to_file_rows(name, config)
        weight = tensor.dequantized() + (delta if order is None else delta[order])
        yield quantized(name, np.asarray(weight, np.float32), kind)
