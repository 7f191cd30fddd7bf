"""Names of the linear modules an adapter may attach to, and where their weights stand in a GGUF.

Module paths are those of the Hugging Face model (`model.layers.0.self_attn.q_proj`), so adapters
trade with PEFT unchanged.
"""

from __future__ import annotations

from runtime.engine import ModelConfig
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
    shapes = {}
    for layer in range(config.layers):
        for projection, (_, tensor) in PROJECTIONS.items():
            rows, columns = file.tensor(f"blk.{layer}.{tensor}.weight").shape
            shapes[module_path(layer, projection)] = ModuleShape(
                out_features=rows, in_features=columns
            )
    return shapes
