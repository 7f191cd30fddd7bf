"""The attach proof: nothing missing, nothing left over, the right base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from specs.attach import check_adapter_shapes, check_attach
from specs.base_card import BaseCard, ModuleShape
from specs.blobs import Blob
from specs.errors import IntegrityError
from specs.manifest import PACK_FILES, Manifest
from specs.safetensors_header import Header, read_header
from tests.support.packs import FINGERPRINT, MODULES, RANK, adapter_tensors, pack_toml, tiny_base

FIRST = next(iter(MODULES))


def header(folder: Path, tensors: Mapping[str, np.ndarray]) -> Header:
    file = folder / "adapter.safetensors"
    save_file(dict(tensors), file)
    return read_header(file)


def manifest(**changes: object) -> Manifest:
    blobs = [Blob.of_bytes(name, b"x").model_dump(mode="json") for name in sorted(PACK_FILES)]
    return Manifest.from_object(pack_toml("legal") | {"blobs": blobs} | changes, "a test")


@pytest.fixture
def card(tmp_path: Path) -> BaseCard:
    return tiny_base(tmp_path / "base")


def test_every_module_attaches(tmp_path: Path, card: BaseCard) -> None:
    assert check_attach(manifest(), header(tmp_path, adapter_tensors()), card, "a") == len(MODULES)


def test_a_pack_for_another_base(tmp_path: Path, card: BaseCard) -> None:
    other = card.model_copy(update={"fingerprint": "c" * 64})
    with pytest.raises(IntegrityError, match=r"was made for base tiny .*b{12}.* not for .*c{12}"):
        check_attach(manifest(), header(tmp_path, adapter_tensors()), other, "a")


def test_a_base_of_another_name_but_the_same_bytes_fits(tmp_path: Path, card: BaseCard) -> None:
    renamed = card.model_copy(update={"name": "renamed"})
    assert card.fingerprint == FINGERPRINT
    assert check_attach(manifest(), header(tmp_path, adapter_tensors()), renamed, "a")


def test_another_number_of_modules_than_recorded(tmp_path: Path, card: BaseCard) -> None:
    one = {FIRST: MODULES[FIRST]}
    with pytest.raises(IntegrityError, match="attaches to 1 modules, and its manifest says 4"):
        check_attach(manifest(), header(tmp_path, adapter_tensors(one)), card, "a")


def refused(folder: Path, tensors: Mapping[str, np.ndarray], rule: str) -> None:
    with pytest.raises(IntegrityError, match=rule) as caught:
        check_adapter_shapes(header(folder, tensors), MODULES, RANK, "adapter of legal")
    assert "adapter of legal" in caught.value.message


def test_unknown_module(tmp_path: Path) -> None:
    extra = adapter_tensors({"model.layers.9.self_attn.q_proj": MODULES[FIRST]})
    refused(
        tmp_path, adapter_tensors() | extra, r"`model.layers.9.self_attn.q_proj` does not exist"
    )


@pytest.mark.parametrize("half", ["A", "B"])
def test_missing_half(tmp_path: Path, half: str) -> None:
    tensors = adapter_tensors()
    del tensors[f"{FIRST}.lora_{half}.weight"]
    refused(tmp_path, tensors, f"`{FIRST}` has only one half")


@pytest.mark.parametrize("half", ["A", "B"])
def test_wrong_shape(tmp_path: Path, half: str) -> None:
    tensors = adapter_tensors()
    name = f"{FIRST}.lora_{half}.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    refused(tmp_path, tensors, f"`{name}` has shape .* and the base needs")


def test_another_rank_than_recorded(tmp_path: Path) -> None:
    refused(tmp_path, adapter_tensors(rank=RANK + 1), "has shape")


def test_tensor_that_is_no_part_of_an_adapter(tmp_path: Path) -> None:
    refused(
        tmp_path,
        adapter_tensors() | {"model.embed_tokens.weight": np.zeros((2, 2), np.float16)},
        "`model.embed_tokens.weight` is not part of an adapter",
    )


def test_peft_prefix_is_not_stripped_silently(tmp_path: Path) -> None:
    tensors = {f"base_model.model.{k}": v for k, v in adapter_tensors().items()}
    refused(tmp_path, tensors, "does not exist in the base")


@pytest.mark.parametrize("dtype", [np.int8, np.float64])
def test_dtype_that_adapters_do_not_have(tmp_path: Path, dtype: type) -> None:
    tensors = adapter_tensors()
    name = next(iter(tensors))
    tensors[name] = tensors[name].astype(dtype)
    refused(tmp_path, tensors, "has dtype")


def test_an_adapter_of_nothing(tmp_path: Path) -> None:
    refused(tmp_path, {}, "attaches to nothing")


def test_empty_modules_of_a_base() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        ModuleShape(out_features=0, in_features=16)
