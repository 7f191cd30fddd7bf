"""One test per way an adapter can be wrong; none of them loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runtime.torch_engine import TorchEngine
from specs.attach import SUFFIX_A, SUFFIX_B
from specs.errors import IntegrityError
from specs.manifest import ADAPTER_FILE
from tests.support.adapters import random_adapter, write_pack
from tests.support.tiny_base import write_tiny_base

MODULE = "model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TorchEngine:
    base = tmp_path_factory.mktemp("bases") / "tiny"
    write_tiny_base(base)
    return TorchEngine(base, device="cpu")


def refused(engine: TorchEngine, folder: Path, changes: dict[str, torch.Tensor | None]) -> str:
    tensors: dict[str, torch.Tensor | None] = {**random_adapter(engine.card, 4, 0), **changes}
    kept = {k: v for k, v in tensors.items() if v is not None}
    pack = write_pack(folder, engine.card, kept, 4, 8.0, "answer")
    before = engine.memory()
    with pytest.raises(IntegrityError) as caught:
        engine.load_adapter(pack)
    assert engine.memory() == before
    return caught.value.message


def test_wrong_shape(engine: TorchEngine, tmp_path: Path) -> None:
    message = refused(engine, tmp_path / "p", {MODULE + SUFFIX_A: torch.zeros(4, 65).half()})
    assert MODULE in message and "[4, 64]" in message


def test_unknown_module(engine: TorchEngine, tmp_path: Path) -> None:
    name = "model.layers.9.mlp.up_proj"
    changes: dict[str, torch.Tensor | None] = {name + SUFFIX_A: torch.zeros(4, 64).half()}
    assert name in refused(engine, tmp_path / "p", changes)


def test_missing_half(engine: TorchEngine, tmp_path: Path) -> None:
    assert MODULE in refused(engine, tmp_path / "p", {MODULE + SUFFIX_B: None})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number(engine: TorchEngine, tmp_path: Path, value: float) -> None:
    bad = torch.zeros(96, 4).half()
    bad[5, 2] = value
    assert "NaN or infinity" in refused(engine, tmp_path / "p", {MODULE + SUFFIX_B: bad})


def test_another_base(engine: TorchEngine, tmp_path: Path) -> None:
    other = write_tiny_base(tmp_path / "other", seed=5)
    pack = write_pack(tmp_path / "p", other, random_adapter(other, 4, 0), 4, 8.0, "answer")
    with pytest.raises(IntegrityError, match="was made for base"):
        engine.load_adapter(pack)


def test_truncated_file(engine: TorchEngine, tmp_path: Path) -> None:
    tensors = random_adapter(engine.card, 4, 0)
    pack = write_pack(tmp_path / "p", engine.card, tensors, 4, 8.0, "answer")
    file = pack / ADAPTER_FILE
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(IntegrityError, match=r"adapter\.safetensors"):
        engine.load_adapter(pack)


def test_some_modules_only(engine: TorchEngine, tmp_path: Path) -> None:
    """An adapter on a few modules attaches to those and leaves the others alone."""
    tensors = {k: v for k, v in random_adapter(engine.card, 4, 0).items() if "v_proj" in k}
    pack = write_pack(tmp_path / "p", engine.card, tensors, 4, 8.0, "answer")
    slot = engine.load_adapter(pack)
    adapter = engine._adapters[slot]
    assert set(adapter.pairs) == {(i, "qkv") for i in range(engine.card.layers)}
    _, b = adapter.pairs[0, "qkv"]
    assert not b[:96].any() and b[96:].any()
    engine.unload_adapter(slot)
