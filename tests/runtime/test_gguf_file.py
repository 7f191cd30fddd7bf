"""Hostile and damaged GGUF files, and what the fingerprint depends on."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.gguf_file import fingerprint, model_config, open_gguf
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


def test_damaged_weights_stop_the_engine_with_words(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_tiny_base(base)
    weights = base / "weights.gguf"
    raw = weights.read_bytes()
    weights.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(IntegrityError, match=r"weights\.gguf"):
        TorchEngine(base)
