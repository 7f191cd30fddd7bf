"""PEFT adapter folders, the Hub's format: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save

from specs.attach import ADAPTER_DTYPES, SUFFIX_A, SUFFIX_B
from specs.base_card import BaseCard
from specs.errors import IntegrityError, NotFoundError, UsageError
from specs.manifest import Manifest
from specs.safetensors_header import Header, read_header
from trainer.interchange.lora import Lora, Pair, Shapes, check_shapes, load_tensors, short_names
from trainer.interchange.peft_config import CONFIG_FILE, PICKLE_FILE, WEIGHTS_FILE, read_config

PREFIX = "base_model.model."
FINGERPRINT_KEY = "mbpm_base_fingerprint"
"""In the metadata of the safetensors file: the base that a pack was made for."""
_ELSEWHERE = {
    "lora_embedding_A": "an adapter of the embeddings, which a pack does not change",
    "lora_embedding_B": "an adapter of the embeddings, which a pack does not change",
    "lora_magnitude_vector": "DoRA, which normalises every row for every token",
    "modules_to_save": "a replaced module of the base",
    "lm_head": "an adapter of the output matrix, which a pack does not change",
    "embed_tokens": "the embeddings, which a pack does not change",
}


def read_peft(folder: Path, card: BaseCard, header_tokens: Sequence[int]) -> Lora:
    """Read an adapter for a base, exactly or not at all.

    Args:
        header_tokens: what opens the assistant's turn in the base's chat format.

    Raises:
        NotFoundError: a file is missing.
        UsageError: it holds what a pack cannot carry; the message names it.
        IntegrityError: it is malformed, or does not fit the base.
    """
    config = read_config(folder)
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        if (folder / PICKLE_FILE).exists():
            raise UsageError(
                f"{folder / PICKLE_FILE}: is a pickle, which can run code, and is never read",
                hint=f"save the adapter as {WEIGHTS_FILE}: `model.save_pretrained(folder)` of a "
                "newer peft does",
            )
        raise NotFoundError(f"{folder}: has no {WEIGHTS_FILE}")
    header = read_header(file)
    shapes = _shapes(header, file)
    check_shapes(shapes, card, file)
    scales = {module: config.scale(module, a[0], file) for module, (a, _) in shapes.items()}
    tensors = load_tensors(file)
    pairs = {
        module: Pair(
            tensors[PREFIX + module + SUFFIX_A], tensors[PREFIX + module + SUFFIX_B], scale
        )
        for module, scale in scales.items()
    }
    if config.invocation is not None and config.invocation != tuple(header_tokens):
        raise UsageError(
            f"{folder / CONFIG_FILE}: `alora_invocation_tokens` are {list(config.invocation)}, and "
            f"a pack acts from what opens an answer of {card.name}: {list(header_tokens)}"
        )
    return Lora(
        pairs,
        "full" if config.invocation is None else "answer",
        declared_base=config.base,
        fingerprint=header.metadata.get(FINGERPRINT_KEY),
    )


def _shapes(header: Header, file: Path) -> dict[str, Shapes]:
    """Module -> shapes of its pair; raises UsageError for what is no part of one."""
    halves: dict[str, tuple[int, ...]] = {}
    for name, info in header.tensors.items():
        module = name.removeprefix(PREFIX)
        why = next((w for part, w in _ELSEWHERE.items() if part in name), None)
        if why or not name.startswith(PREFIX) or not module.endswith((SUFFIX_A, SUFFIX_B)):
            raise UsageError(f"{file}: tensor `{name}` is {why or 'no part of a LoRA adapter'}")
        if info.dtype not in ADAPTER_DTYPES:
            raise UsageError(
                f"{file}: tensor `{name}` has dtype {info.dtype} (expected one of "
                f"{', '.join(ADAPTER_DTYPES)})"
            )
        halves[module] = info.shape
    shapes = {}
    for module in sorted({h.removesuffix(SUFFIX_A).removesuffix(SUFFIX_B) for h in halves}):
        a, b = halves.get(module + SUFFIX_A), halves.get(module + SUFFIX_B)
        if a is None or b is None:
            raise IntegrityError(f"{file}: module `{module}` has only one half")
        shapes[module] = (a, b)
    return shapes


def write_peft(
    lora: Lora,
    manifest: Manifest,
    card: BaseCard,
    header_tokens: Sequence[int],
    base_model: str,
    folder: Path,
) -> list[str]:
    """Write a PEFT adapter folder; returns the names of its files.

    Args:
        lora: the pack's adapter.
        base_model: what `base_model_name_or_path` says: the base that PEFT is to load.
    """
    tensors = {}
    for module, pair in lora.pairs.items():
        tensors[f"{PREFIX}{module}{SUFFIX_A}"] = pair.a.contiguous()
        tensors[f"{PREFIX}{module}{SUFFIX_B}"] = pair.b.contiguous()
    alpha = manifest.adapter.alpha
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": manifest.adapter.rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": short_names(lora.pairs, card),
        "inference_mode": True,
    }
    if lora.activation == "answer":
        config["alora_invocation_tokens"] = list(header_tokens)
    metadata = {"format": "pt", FINGERPRINT_KEY: card.fingerprint}
    files = {
        CONFIG_FILE: json.dumps(config, indent=2, sort_keys=True).encode() + b"\n",
        WEIGHTS_FILE: save(tensors, metadata),
        "README.md": _model_card(manifest, base_model).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return list(files)


def _model_card(manifest: Manifest, base_model: str) -> str:
    simple = all(c.isalnum() or c in "-.+" for c in manifest.license)
    front = [
        f"base_model: {json.dumps(base_model)}",
        "library_name: peft",
        f"license: {manifest.license.lower() if simple else 'other'}",
        *([] if simple else [f"license_name: {json.dumps(manifest.license)}"]),
        "tags: [lora, mbpm]",
    ]
    lines = [
        "---", *front, "---", "",
        f"# {manifest.name} {manifest.version}", "", manifest.description, "",
        f"Exported from an mbpm pack made for the base `{manifest.base.name}`, "
        f"fingerprint `{manifest.base.fingerprint}`: quantised weights. On the unquantised base it "
        "says nearly the same.", "",
        *(f"- {s.name} {s.version}: {s.license}" for s in manifest.sources),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"
