"""Random adapters for both sides: as pack folders for our engine, as a GGUF file for llama.cpp."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from runtime.engine import ModelConfig
from specs.attach import SUFFIX_A, SUFFIX_B
from specs.base_card import BaseCard
from specs.blobs import Blob
from specs.manifest import (
    ADAPTER_FILE,
    MANIFEST_FILE,
    REQUIRED_FILES,
    AdapterInfo,
    BaseRef,
    Manifest,
)

RANK = 8
ALPHA = 16.0
F32 = npt.NDArray[np.float32]

GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def prompt_tokens(count: int) -> list[int]:
    """The same arbitrary prompt on both sides."""
    rng = random.Random(7)
    return [rng.randrange(1000, 20000) for _ in range(count)]


def random_adapter(card: BaseCard, seed: int = 7) -> dict[str, F32]:
    """Tensors of rank `RANK` on every module, small enough to leave the text a text."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, F32] = {}
    for module, shape in card.modules.items():
        a = rng.standard_normal((RANK, shape.in_features)) / np.sqrt(shape.in_features)
        b = rng.standard_normal((shape.out_features, RANK)) * 1e-3
        tensors[module + SUFFIX_A] = a.astype(np.float32)
        tensors[module + SUFFIX_B] = b.astype(np.float32)
    return tensors


def write_pack(card: BaseCard, folder: Path, seed: int = 7) -> Path:
    """Write a random adapter as what an engine loads of an installed pack."""
    folder.mkdir(parents=True)
    half = {k: v.astype(np.float16) for k, v in random_adapter(card, seed).items()}
    save_file(half, folder / ADAPTER_FILE)
    blobs = [Blob.of_file(folder / ADAPTER_FILE)]
    blobs += [Blob.of_bytes(name, b"") for name in sorted(REQUIRED_FILES - {ADAPTER_FILE})]
    manifest = Manifest(
        name=folder.name,
        version="1.0.0",
        domain="random",
        description="Random numbers: what an adapter costs, not what it says",
        license="Apache-2.0",
        base=BaseRef(name=card.name, fingerprint=card.fingerprint),
        adapter=AdapterInfo(activation="full", rank=RANK, alpha=ALPHA, modules=len(card.modules)),
        blobs=tuple(blobs),
    )
    (folder / MANIFEST_FILE).write_bytes(manifest.canonical())
    return folder


def rotary_order(b: F32, heads: int) -> F32:
    """Rows of a query or key projection, reordered as llama.cpp's converter does it.

    Hugging Face keeps the two halves of a rotated pair half a head apart, llama.cpp's llama keeps
    them side by side (`LlamaModel.permute` in its convert_hf_to_gguf.py).
    """
    rows, rank = b.shape
    halves = b.reshape(heads, 2, rows // heads // 2, rank)
    paired: F32 = halves.swapaxes(1, 2).reshape(rows, rank)
    return paired


def write_gguf(tensors: dict[str, F32], config: ModelConfig, file: Path) -> None:
    """Write the adapter as llama.cpp's `--lora` reads it."""
    import gguf

    writer = gguf.GGUFWriter(file, config.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, ALPHA)
    for name, value in tensors.items():
        match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.lora_([AB])\.weight", name)
        assert match is not None, name
        if match[3] == "B" and config.architecture == "llama":
            if match[2] == "self_attn.q_proj":
                value = rotary_order(value, config.heads)
            elif match[2] == "self_attn.k_proj":
                value = rotary_order(value, config.kv_heads)
        tensor = f"blk.{match[1]}.{GGUF_NAMES[match[2]]}.weight.lora_{match[3].lower()}"
        writer.add_tensor(tensor, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
