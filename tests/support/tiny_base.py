"""A complete base of a few hundred kilobytes: random weights, byte vocabulary, chat template.

Real formats throughout; only the weights mean nothing. For tests that need a model and not sense.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter
from gguf.quants import quantize

import trainer.off_domain
import trainer.routing
from runtime.gguf_file import fingerprint, model_config, open_gguf
from runtime.modules import module_shapes
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseBlob, BaseCard
from specs.blobs import Blob, FileSource
from trainer.make_base import BaseDescription, make_base

HIDDEN, FFN, HEADS, KV_HEADS, LAYERS, CONTEXT = 64, 96, 4, 2, 3, 512
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_letters() -> list[str]:
    """GPT-2's printable letters for the bytes 0 to 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, extra = [], 0
    for byte in range(256):
        if byte in printable:
            letters.append(chr(byte))
        else:
            letters.append(chr(256 + extra))
            extra += 1
    return letters


def write_tiny_gguf(
    path: Path, architecture: str = "llama", seed: int = 0, types: tuple[Type, ...] = (Type.Q4_1,)
) -> None:
    """Write a decoder with random weights; projections take the `types` in turn."""
    rng = np.random.default_rng(seed)
    tokens = [*SPECIAL, *byte_letters(), "th", "in"]
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["t h", "i n"])
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    writer.add_chat_template(TEMPLATE)
    kv = HIDDEN // HEADS * KV_HEADS
    count = 0

    def matrix(name: str, rows: int, columns: int) -> None:
        nonlocal count
        kind = types[count % len(types)]
        count += 1
        weight = rng.normal(0, columns**-0.5, (rows, columns)).astype(np.float32)
        writer.add_tensor(name, quantize(weight, kind), raw_dtype=kind)

    writer.add_tensor(
        "token_embd.weight",
        quantize(rng.normal(0, 1, (len(tokens), HIDDEN)).astype(np.float32), Type.Q8_0),
        raw_dtype=Type.Q8_0,
    )
    writer.add_tensor("output_norm.weight", rng.uniform(0.5, 1.5, HIDDEN).astype(np.float32))
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for norm in ("attn_norm", "ffn_norm"):
            weight = rng.uniform(0.5, 1.5, HIDDEN).astype(np.float32)
            writer.add_tensor(f"{block}.{norm}.weight", weight)
        matrix(f"{block}.attn_q.weight", HIDDEN, HIDDEN)
        matrix(f"{block}.attn_k.weight", kv, HIDDEN)
        matrix(f"{block}.attn_v.weight", kv, HIDDEN)
        matrix(f"{block}.attn_output.weight", HIDDEN, HIDDEN)
        matrix(f"{block}.ffn_gate.weight", FFN, HIDDEN)
        matrix(f"{block}.ffn_up.weight", FFN, HIDDEN)
        matrix(f"{block}.ffn_down.weight", HIDDEN, FFN)
        if architecture == "qwen2":
            for name, rows in (("q", HIDDEN), ("k", kv), ("v", kv)):
                bias = rng.normal(0, 0.1, rows).astype(np.float32)
                writer.add_tensor(f"{block}.attn_{name}.bias", bias)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_tiny_base(folder: Path) -> Path:
    """A base folder as `trainer.make_base` makes it, calibrated with a few prompts for speed."""
    write_tiny_gguf(folder / "tiny.gguf")
    description = BaseDescription(
        name="tiny",
        description="random weights",
        license="MIT",
        parameters=1,
        sources=(FileSource(path=str(folder / "tiny.gguf")),),
    )
    with few_general_prompts():
        make_base(description, folder / "tiny.gguf", folder / "tiny")
    return folder / "tiny"


@contextmanager
def few_general_prompts() -> Iterator[None]:
    """Calibrate routing with a twentieth of the general prompts, and a tenth of the suite."""
    few = trainer.routing.general_prompts()[::20]
    suite = trainer.off_domain.general_suite()[::10]
    with (
        mock.patch.object(trainer.routing, "general_prompts", lambda: few),
        mock.patch.object(trainer.off_domain, "general_suite", lambda: suite),
    ):
        yield


def write_tiny_base(folder: Path, architecture: str = "llama", seed: int = 0) -> BaseCard:
    """Write a base folder (weights and card) and return its card."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / WEIGHTS_FILE
    write_tiny_gguf(weights, architecture, seed)
    file = open_gguf(weights)
    config = model_config(file)
    card = BaseCard(
        name="tiny",
        description="random weights for tests",
        license="Apache-2.0",
        architecture=config.architecture,
        parameters=100_000,
        layers=config.layers,
        hidden_size=config.hidden_size,
        context_length=config.context_length,
        kv_bytes_per_token=config.layers * 2 * config.kv_heads * config.head_dim * 2,
        resident_bytes=200_000,
        fingerprint=fingerprint(file),
        modules=module_shapes(file, config),
        files=(
            BaseBlob(
                blob=Blob.of_file(weights, WEIGHTS_FILE), sources=(FileSource(path=str(weights)),)
            ),
        ),
    )
    (folder / CARD_FILE).write_bytes(card.canonical())
    return card
