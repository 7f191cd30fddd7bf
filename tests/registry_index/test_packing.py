"""From an author's folder to a manifest, and what is refused on the way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from registry_index.contents import check_blob, check_tensors, find_card, prove_attach
from registry_index.packing import build_manifest
from specs.blobs import Blob
from specs.errors import IntegrityError, NotFoundError
from specs.manifest import BaseRef
from tests.support.packs import FINGERPRINT, MODULES, adapter_tensors, pack_folder, tiny_base


def refused(folder: Path, rule: str, kind: type[Exception] = IntegrityError) -> None:
    with pytest.raises(kind, match=rule):
        build_manifest(folder)


def test_a_folder_becomes_a_manifest(tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal", "1.2.0", files={"LICENSE": b"yes"})
    manifest, files = build_manifest(folder)
    assert (manifest.name, manifest.version) == ("legal", "1.2.0")
    assert [b.path for b in manifest.blobs] == [
        *("LICENSE", "README.md", "adapter.safetensors", "evals.json", "routing.safetensors")
    ]
    assert files["LICENSE"] == folder / "LICENSE"
    assert manifest.blob("LICENSE") == Blob.of_bytes("LICENSE", b"yes")
    assert build_manifest(folder)[0].digest() == manifest.digest()
    assert prove_attach(manifest, files, tiny_base(tmp_path / "base")) == len(MODULES)


def test_the_manifest_says_nothing_of_the_gates(tmp_path: Path) -> None:
    plain = build_manifest(pack_folder(tmp_path / "a", "legal"))[0]
    gated = build_manifest(pack_folder(tmp_path / "b", "legal", gates={"min_gain": 1.0}))[0]
    assert plain.digest() == gated.digest()


def test_leftovers_of_training_are_ignored(tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal")
    digest = build_manifest(folder)[0].digest()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-1.pt").write_bytes(b"x")
    for name in ("loss.png", ".DS_Store", "legal-1.0.0.mbpack"):
        (folder / name).write_bytes(b"x")
    (folder / ".git").mkdir()
    assert build_manifest(folder)[0].digest() == digest


@pytest.mark.parametrize("name", ["notes.txt", "adapter.bin", "run.py"])
def test_an_unknown_file_is_named(tmp_path: Path, name: str) -> None:
    refused(pack_folder(tmp_path / "p", "legal", files={name: b"x"}), f"{name}: is not a file of")


def test_an_unknown_folder_is_named(tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal")
    (folder / "data").mkdir()
    refused(folder, "data: is not a file of a pack")


def test_a_manifest_written_by_hand_is_refused(tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal", files={"manifest.json": b"{}"})
    with pytest.raises(IntegrityError, match=r"manifest\.json") as caught:
        build_manifest(folder)
    assert caught.value.hint is not None
    assert "remove it" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["adapter.safetensors", "routing.safetensors", "evals.json", "README.md"]
)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = pack_folder(tmp_path / "p", "legal")
    (folder / name).unlink()
    refused(folder, f"`{name}` is missing", NotFoundError)


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal")
    (folder / "LICENSE").mkdir()
    refused(folder, "LICENSE: is not a plain file")


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_symlink_does_not_smuggle_a_private_file_into_a_pack(tmp_path: Path) -> None:
    secret = tmp_path / "id_rsa"
    secret.write_text("private")
    folder = pack_folder(tmp_path / "p", "legal")
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(secret)
    refused(folder, r"README\.md: is not a plain file")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_numbers_that_are_none_in_the_adapter(tmp_path: Path, bad: float, dtype: type) -> None:
    tensors = {name: t.astype(dtype) for name, t in adapter_tensors().items()}
    name = list(tensors)[-1]
    tensors[name].flat[-1] = bad
    folder = pack_folder(tmp_path / "p", "legal", tensors=tensors)
    refused(folder, rf"adapter\.safetensors: tensor `{name}` holds NaN or infinite")


def test_numbers_that_are_none_in_bfloat16(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "t.safetensors"
    values = torch.tensor([0.0, -1.5, torch.finfo(torch.bfloat16).max], dtype=torch.bfloat16)
    save_file({"t": values}, file)
    check_tensors(file)
    for bad in (float("nan"), float("inf"), float("-inf")):
        values[1] = bad
        save_file({"t": values}, file)
        with pytest.raises(IntegrityError, match="holds NaN or infinite"):
            check_tensors(file)


def test_numbers_that_are_none_in_routing(tmp_path: Path) -> None:
    prototypes = np.full((2, 16), np.nan, np.float32)
    folder = pack_folder(
        tmp_path / "p", "legal", files={"routing.safetensors": save({"prototypes": prototypes})}
    )
    refused(folder, r"routing\.safetensors: tensor `prototypes` holds NaN")


def test_nan_at_the_end_of_a_tensor_of_many_pieces(tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    values = np.zeros(3 << 20, np.float32)
    values[-1] = np.nan
    file.write_bytes(save({"t": values}))
    with pytest.raises(IntegrityError, match="holds NaN"):
        check_tensors(file)


def test_truncated_adapter(tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal")
    raw = (folder / "adapter.safetensors").read_bytes()
    (folder / "adapter.safetensors").write_bytes(raw[:-1])
    refused(folder, r"adapter\.safetensors: .*outside the file")


@pytest.mark.parametrize(
    ("content", "rule"),
    [(b"{", "is not JSON"), (b'{"format":1,"surprise":2}', "unknown key|missing")],
)
def test_malformed_evals(tmp_path: Path, content: bytes, rule: str) -> None:
    refused(pack_folder(tmp_path / "p", "legal", files={"evals.json": content}), rule)


def test_evals_of_another_domain(tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal")
    text = (folder / "pack.toml").read_text().replace('domain = "legal"', 'domain = "tax"')
    (folder / "pack.toml").write_text(text)
    refused(folder, "`domain` is `legal`, and the pack's is `tax`")


def test_evals_measured_on_another_base(tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal")
    raw = (folder / "evals.json").read_text().replace(FINGERPRINT, "c" * 64)
    (folder / "evals.json").write_text(raw)
    refused(folder, "was measured on base c{12}")


@pytest.mark.parametrize(
    ("file", "rule"),
    [("adapter.safetensors", "another adapter (sha256 "),
     ("routing.safetensors", "another routing card (sha256 ")],
)  # fmt: skip
def test_figures_of_other_bytes(tmp_path: Path, file: str, rule: str) -> None:
    folder = pack_folder(tmp_path / "p", "legal")
    other = pack_folder(tmp_path / "other", "tax")
    (folder / file).write_bytes((other / file).read_bytes())
    with pytest.raises(IntegrityError) as caught:
        build_manifest(folder)
    assert f"{folder / 'evals.json'}: its figures are of {rule}" in caught.value.message
    assert caught.value.hint is not None
    assert "`mbpm eval FOLDER --save`" in caught.value.hint
    build_manifest(folder, measuring=True)


def test_figures_of_an_adapter_that_was_applied_otherwise(tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal")
    text = (folder / "pack.toml").read_text("utf-8")
    (folder / "pack.toml").write_text(text.replace("alpha = 4.0", "alpha = 8.0"), "utf-8")
    with pytest.raises(IntegrityError, match=r"the adapter with `alpha` 4\.0, not 8\.0"):
        build_manifest(folder)


def test_a_blob_that_changed(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    blob = Blob.of_bytes("LICENSE", b"abc")
    check_blob(blob, file)
    file.write_bytes(b"abd")
    with pytest.raises(IntegrityError, match="do not match the digest"):
        check_blob(blob, file)
    file.write_bytes(b"abcd")
    with pytest.raises(IntegrityError, match="has 4 bytes"):
        check_blob(blob, file)


def test_the_base_is_found_by_fingerprint_before_name(tmp_path: Path) -> None:
    card = tiny_base(tmp_path)
    namesake = card.model_copy(update={"fingerprint": "c" * 64})
    renamed = card.model_copy(update={"name": "renamed"})
    wanted = BaseRef(name="tiny", fingerprint=FINGERPRINT)
    assert find_card(wanted, [namesake, renamed]) == renamed
    assert find_card(wanted, [namesake]) == namesake
    with pytest.raises(NotFoundError, match="base `tiny`"):
        find_card(wanted, [])
