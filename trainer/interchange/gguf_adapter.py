"""GGUF adapters, as llama.cpp's `convert_lora_to_gguf.py` writes them and its loader reads them.

Query and key rows of a llama base stand in another order there, and so do those of B.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.engine import F32, ModelConfig
from runtime.gguf_file import GGUFFile, GGUFTensor, open_gguf
from runtime.modules import PROJECTIONS, module_path, row_order
from specs.base_card import BaseCard
from specs.errors import IntegrityError, UsageError
from specs.manifest import Manifest
from trainer.gguf_write import to_file_rows, write_gguf
from trainer.interchange.lora import Lora, Pair, check_shapes

FINGERPRINT_KEY = "mbpm.base.fingerprint"
INVOCATION_KEY = "adapter.alora.invocation_tokens"
_KNOWN = frozenset(["adapter.type", "adapter.lora.alpha", INVOCATION_KEY])
_SHOWN_ONLY = frozenset(["adapter.lora.task_name", "adapter.lora.prompt_prefix"])
"""Texts that llama.cpp shows and does not use."""
_HALVES = (".lora_a", ".lora_b")


def is_gguf(file: Path) -> bool:
    """Whether a file begins as a GGUF file does."""
    with file.open("rb") as stream:
        return stream.read(4) == b"GGUF"


def tensor_names(config: ModelConfig) -> dict[str, str]:
    """GGUF weight -> module path, of all that may be adapted."""
    return {
        f"blk.{layer}.{tensor}.weight": module_path(layer, projection)
        for layer in range(config.layers)
        for projection, (_, tensor) in PROJECTIONS.items()
    }


def read_gguf_adapter(
    path: Path, config: ModelConfig, card: BaseCard, header_tokens: Sequence[int]
) -> Lora:
    """Read an adapter for a base, exactly or not at all.

    Args:
        header_tokens: what opens the assistant's turn in the base's chat format.

    Raises:
        UsageError: it is a model, or holds what a pack cannot carry; the message names it.
        IntegrityError: it is malformed, or does not fit the base.
    """
    file = open_gguf(path)
    if (kind := file.metadata.get("general.type")) != "adapter":
        raise UsageError(
            f"{path}: is no adapter (`general.type` is {kind!r})",
            hint="a base is installed with `mbpm base install`",
        )
    if (kind := file.get("adapter.type")) != "lora":
        raise UsageError(f"{path}: `adapter.type` is {kind!r}, and only `lora` can be imported")
    if (arch := file.get("general.architecture")) != config.architecture:
        raise IntegrityError(f"{path}: is for architecture `{arch}`, and {card.name} is a "
                             f"`{config.architecture}`")  # fmt: skip
    for key in file.metadata:
        if key.startswith("adapter.") and key not in _KNOWN | _SHOWN_ONLY:
            raise UsageError(f"{path}: `{key}` is not known to mbpm, so what it changes is lost")
    pairs = _pairs(file, config, card)
    found = file.metadata.get(INVOCATION_KEY)
    if found is not None and not isinstance(found, np.ndarray):
        raise IntegrityError(f"{path}: `{INVOCATION_KEY}` is {found!r} (expected token ids)")
    if found is not None and list(found) != list(header_tokens):
        raise UsageError(
            f"{path}: `{INVOCATION_KEY}` are {list(found)}, and a pack acts from what opens an "
            f"answer of {card.name}: {list(header_tokens)}"
        )
    fingerprint = file.metadata.get(FINGERPRINT_KEY)
    return Lora(
        pairs,
        "full" if found is None else "answer",
        declared_base=_declared(file.metadata),
        fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        lost=tuple(f"`{k}`: a text for people" for k in _SHOWN_ONLY if file.metadata.get(k)),
    )


def _declared(metadata: dict[str, Any]) -> str:
    for key in ("general.base_model.0.repo_url", "general.base_model.0.name"):
        if isinstance(value := metadata.get(key), str):
            return value.removeprefix("https://huggingface.co/")
    return ""


def _pairs(file: GGUFFile, config: ModelConfig, card: BaseCard) -> dict[str, Pair]:
    modules = tensor_names(config)
    alpha = file.metadata.get("adapter.lora.alpha", 0.0)
    if not isinstance(alpha, (int, float)) or not np.isfinite(alpha) or alpha < 0:
        raise IntegrityError(f"{file.path}: `adapter.lora.alpha` is {alpha!r}")
    weights: dict[str, None] = {}
    for name in file.tensors:
        weight, half = name[:-7], name[-7:]
        if half not in _HALVES or weight not in modules:
            raise UsageError(
                f"{file.path}: tensor `{name}` is no part of a LoRA adapter of a projection, "
                "and a pack adapts nothing else"
            )
        weights.setdefault(weight)
    if alone := [w for w in weights if not all(w + h in file.tensors for h in _HALVES)]:
        raise IntegrityError(f"{file.path}: `{alone[0]}` has only one half of its adapter")
    found = {w: (file.tensors[w + ".lora_a"], file.tensors[w + ".lora_b"]) for w in weights}
    shapes = {modules[w]: (a.shape, b.shape) for w, (a, b) in found.items()}
    check_shapes(shapes, card, file.path)
    pairs = {}
    for weight, (a, b) in found.items():
        order = row_order(config, weight)
        rows = _values(b, file) if order is None else _values(b, file)[order]
        # llama.cpp: without an alpha the factor is 1, and the rank is B's
        scale = float(alpha) / b.shape[1] if alpha else 1.0
        pairs[modules[weight]] = Pair(
            torch.from_numpy(_values(a, file)), torch.from_numpy(rows), scale
        )
    return pairs


def _values(tensor: GGUFTensor, file: GGUFFile) -> F32:
    values = tensor.dequantized()
    if not np.isfinite(values).all():
        raise IntegrityError(f"{file.path}: tensor `{tensor.name}` holds NaN or infinity")
    return values


def write_gguf_adapter(
    lora: Lora,
    manifest: Manifest,
    config: ModelConfig,
    card: BaseCard,
    header_tokens: Sequence[int],
    file: Path,
) -> None:
    """Write an adapter that llama.cpp loads beside the base's GGUF file."""
    metadata: dict[str, Any] = {
        "general.type": "adapter",
        "general.name": f"{manifest.name} {manifest.version}",
        "general.description": manifest.description,
        "general.license": manifest.license,
        "adapter.type": "lora",
        "adapter.lora.alpha": float(manifest.adapter.alpha),
        FINGERPRINT_KEY: card.fingerprint,
    }
    if lora.activation == "answer":
        metadata[INVOCATION_KEY] = np.array(header_tokens, dtype=np.uint32)
    tensors = []
    for weight, module in tensor_names(config).items():
        if (pair := lora.pairs.get(module)) is None:
            continue
        order = to_file_rows(weight, config)
        b = pair.b if order is None else pair.b[torch.from_numpy(order)]
        for half, matrix in zip(_HALVES, (pair.a, b), strict=True):
            kind = "F16" if matrix.dtype is torch.float16 else "F32"
            values = matrix.to(torch.float16 if kind == "F16" else torch.float32).numpy()
            tensors.append(GGUFTensor(weight + half, kind, values.shape, values))
    write_gguf(file, config.architecture, metadata, tensors)
