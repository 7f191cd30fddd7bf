"""Hostile and damaged GGUF files, and what the fingerprint depends on."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.gguf_file import GGUFFile, GGUFTensor, fingerprint, model_config, open_gguf
from runtime.modules import check_weights
from runtime.torch_engine import TorchEngine
from specs.errors import IntegrityError, MbpmError
from tests.support.gguf_files import rewrite_metadata
from tests.support.tiny_base import write_tiny_base, write_tiny_gguf


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


def test_metadata_and_tensors_are_read(tiny: Path) -> None:
    file = open_gguf(tiny)
    config = model_config(file)
    assert (config.layers, config.hidden_size, config.heads, config.kv_heads) == (3, 64, 4, 2)
    assert file.metadata["tokenizer.ggml.merges"] == ["t h", "i n"]
    assert list(file.metadata["tokenizer.ggml.token_type"][:4]) == [3, 3, 3, 1]
    assert file.tensor("blk.0.ffn_up.weight").shape == (96, 64)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated(tiny: Path, tmp_path: Path, share: float) -> None:
    raw = tiny.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(IntegrityError, match=r"cut\.gguf"):
        open_gguf(cut)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_bit_flips_in_the_head_never_crash(tiny: Path, data: st.DataObject) -> None:
    raw = bytearray(tiny.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 8000))] ^= 1 << data.draw(st.integers(0, 7))
    flipped = tiny.with_name("flipped.gguf")
    flipped.write_bytes(raw)
    try:
        model_config(open_gguf(flipped))
    except MbpmError as error:
        assert "flipped.gguf" in error.message


def test_huge_counts_are_refused_without_allocating(tiny: Path, tmp_path: Path) -> None:
    raw = bytearray(tiny.read_bytes())
    bad = tmp_path / "bad.gguf"
    for offset in (8, 16):  # number of tensors, number of metadata entries
        changed = raw.copy()
        struct.pack_into("<Q", changed, offset, 1 << 60)
        bad.write_bytes(changed)
        with pytest.raises(IntegrityError):
            open_gguf(bad)


def test_not_gguf_at_all(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(IntegrityError, match="not a usable GGUF"):
        open_gguf(file)


def test_unknown_architecture_is_named(tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    write_tiny_gguf(other, architecture="gemma2")
    with pytest.raises(MbpmError, match="gemma2"):
        model_config(open_gguf(other))


def test_unsupported_type_is_named(tmp_path: Path) -> None:
    file = tmp_path / "q51.gguf"
    write_tiny_gguf(file, types=(Type.Q5_1,))
    with pytest.raises(MbpmError, match="Q5_1"):
        open_gguf(file)


def test_fingerprint_depends_on_what_a_pack_depends_on(tiny: Path, tmp_path: Path) -> None:
    same, other = tmp_path / "same.gguf", tmp_path / "other.gguf"
    write_tiny_gguf(same)
    write_tiny_gguf(other, seed=1)
    mine = fingerprint(open_gguf(tiny))
    assert fingerprint(open_gguf(same)) == mine
    assert fingerprint(open_gguf(other)) != mine
    prints = set()
    for i, changes in enumerate(
        [{}, {"tokenizer.chat_template": "x"}, {"tokenizer.ggml.merges": ["i n", "t h"]}]
    ):
        changed = tmp_path / f"changed{i}.gguf"
        rewrite_metadata(tiny, changed, changes)
        prints.add(fingerprint(open_gguf(changed)))
    assert len(prints) == 3


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_bit_flips_in_the_head_never_crash_the_engine(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Either the engine refuses the file in words, or what it loads can be run."""
    base = tmp_path_factory.mktemp("base")
    write_tiny_base(base)
    weights = base / "weights.gguf"
    raw = bytearray(weights.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(4500, 7000))] ^= 1 << data.draw(st.integers(0, 7))
    weights.write_bytes(raw)
    try:
        engine = TorchEngine(base, device="cpu")
    except MbpmError as error:
        assert "weights.gguf" in error.message or "tensor" in error.message
    else:
        engine.forward(engine.new_cache(8), [3, 4, 5])


def changed(file: GGUFFile, name: str, tensor: GGUFTensor) -> GGUFFile:
    return replace(file, tensors={**file.tensors, name: tensor})


def test_a_tensor_of_another_shape_is_named(tiny: Path) -> None:
    file = open_gguf(tiny)
    name = "blk.1.attn_k.weight"
    short = replace(file.tensor(name), shape=(16, 64))
    with pytest.raises(IntegrityError, match=r"blk\.1\.attn_k\.weight.*\[16, 64\].*\[32, 64\]"):
        check_weights(changed(file, name, short), model_config(file))


def test_a_tensor_that_would_be_left_out_is_named(tiny: Path) -> None:
    file = open_gguf(tiny)
    more = replace(file.tensor("output_norm.weight"), name="rope_freqs.weight")
    with pytest.raises(MbpmError, match="rope_freqs"):
        check_weights(changed(file, more.name, more), model_config(file))


def test_a_vocabulary_of_another_length_is_refused(tiny: Path) -> None:
    file = open_gguf(tiny)
    tokens = file.get("tokenizer.ggml.tokens")[:-1]
    fewer = replace(file, metadata={**file.metadata, "tokenizer.ggml.tokens": tokens})
    with pytest.raises(IntegrityError, match="260 tokens and 261 rows"):
        check_weights(fewer, model_config(fewer))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.dimension_count", 8), ("rope.freq_base", float("nan")), ("rope.freq_base", "big"),
        ("attention.layer_norm_rms_epsilon", 0.0), ("attention.head_count", 5),
    ],
)  # fmt: skip
def test_impossible_numbers_are_named(tiny: Path, key: str, value: object) -> None:
    file = open_gguf(tiny)
    odd = replace(file, metadata={**file.metadata, f"llama.{key}": value})
    with pytest.raises(MbpmError, match=r"tiny\.gguf"):
        model_config(odd)


def test_a_norm_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_tiny_base(base)
    weights = base / "weights.gguf"
    norm = open_gguf(weights).tensor("output_norm.weight").data.tobytes()
    raw = weights.read_bytes()
    assert raw.count(norm) == 1
    weights.write_bytes(raw.replace(norm, norm[:-4] + struct.pack("<f", float("nan"))))
    with pytest.raises(IntegrityError, match="output_norm"):
        TorchEngine(base)


def test_damaged_weights_stop_the_engine_with_words(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_tiny_base(base)
    weights = base / "weights.gguf"
    raw = weights.read_bytes()
    weights.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(IntegrityError, match=r"weights\.gguf"):
        TorchEngine(base)
