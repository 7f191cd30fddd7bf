"""Names of the linear modules an adapter may attach to, and where their weights stand in a GGUF.

Module paths are those of the Hugging Face model (`model.layers.0.self_attn.q_proj`), so adapters
trade with PEFT unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from runtime.engine import ModelConfig
from specs.errors import IntegrityError, MbpmError

if TYPE_CHECKING:
    from runtime.gguf_file import GGUFFile
    from specs.base_card import ModuleShape

PROJECTIONS = {
    "q_proj": ("self_attn.q_proj", "attn_q"),
    "k_proj": ("self_attn.k_proj", "attn_k"),
    "v_proj": ("self_attn.v_proj", "attn_v"),
    "o_proj": ("self_attn.o_proj", "attn_output"),
    "gate_proj": ("mlp.gate_proj", "ffn_gate"),
    "up_proj": ("mlp.up_proj", "ffn_up"),
    "down_proj": ("mlp.down_proj", "ffn_down"),
}
"""Short name -> (path inside a layer, GGUF tensor inside a block)."""


def module_path(layer: int, projection: str) -> str:
    """`(3, "q_proj")` -> `model.layers.3.self_attn.q_proj`."""
    return f"model.layers.{layer}.{PROJECTIONS[projection][0]}"


def module_shapes(file: GGUFFile, config: ModelConfig) -> dict[str, ModuleShape]:
    """Every module an adapter may attach to, with the shape of its weight."""
    from specs.base_card import ModuleShape

    shapes = {}
    for layer in range(config.layers):
        for projection, (_, tensor) in PROJECTIONS.items():
            rows, columns = file.tensor(f"blk.{layer}.{tensor}.weight").shape
            shapes[module_path(layer, projection)] = ModuleShape(
                out_features=rows, in_features=columns
            )
    return shapes


def row_order(config: ModelConfig, tensor: str) -> npt.NDArray[np.intp] | None:
    """The order in which a tensor's rows are read; None for the file's own.

    llama GGUFs hold query and key rows in pairs for interleaved rotation; this undoes it.
    """
    heads = {"attn_q": config.heads, "attn_k": config.kv_heads}
    kind = tensor.split(".")[-2]
    if config.architecture != "llama" or kind not in heads:
        return None
    rows = np.arange(heads[kind] * config.head_dim)
    order: npt.NDArray[np.intp] = rows.reshape(heads[kind], -1, 2).swapaxes(1, 2).reshape(-1)
    return order


def check_weights(file: GGUFFile, config: ModelConfig) -> None:
    """A file holds exactly the tensors of its decoder, each of the shape its metadata promises.

    Raises:
        IntegrityError: a tensor is missing or has another shape, or the vocabulary another length.
        MbpmError: a tensor this runtime would have to leave out, such as scaled rotary frequencies.
    """
    expected = tensor_shapes(config)
    if "output.weight" in file.tensors:
        expected["output.weight"] = expected["token_embd.weight"]
    for name, shape in expected.items():
        found = file.tensor(name).shape
        if found != shape:
            raise IntegrityError(
                f"{file.path}: tensor `{name}` has shape {list(found)}, expected {list(shape)}"
            )
    for name in file.tensors:
        if name not in expected:
            raise MbpmError(f"{file.path}: has tensor `{name}`, which this runtime cannot use")
    words = len(file.get("tokenizer.ggml.tokens"))
    if words != config.vocab_size:
        raise IntegrityError(
            f"{file.path}: has {words:,} tokens and {config.vocab_size:,} rows of them"
        )


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor a decoder needs, outermost dimension first."""
    d, ffn = config.hidden_size, config.ffn_size
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    block: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (d,),
        "ffn_norm.weight": (d,),
        "attn_q.weight": (q, d),
        "attn_k.weight": (kv, d),
        "attn_v.weight": (kv, d),
        "attn_output.weight": (d, q),
        "ffn_gate.weight": (ffn, d),
        "ffn_up.weight": (ffn, d),
        "ffn_down.weight": (d, ffn),
    }
    if config.qkv_bias:
        block |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    shapes: dict[str, tuple[int, ...]] = {
        f"blk.{layer}.{name}": shape
        for layer in range(config.layers)
        for name, shape in block.items()
    }
    return shapes | {"token_embd.weight": (config.vocab_size, d), "output_norm.weight": (d,)}
