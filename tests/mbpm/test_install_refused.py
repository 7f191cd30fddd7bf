"""What `mbpm install` refuses, and what it leaves then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from registry_index.tree import Registry
from specs.manifest import Manifest
from tests.support.cli import Cli
from tests.support.packs import FINGERPRINT, adapter_tensors, pack_folder, tiny_base

Publish = Callable[..., None]


@pytest.mark.parametrize("target", ["Alpha", "al pha", "alpha@nonsense", "none"])
def test_malformed_target(cli: Cli, target: str) -> None:
    assert cli("install", target).code == 2


def test_missing_archive(cli: Cli, tmp_path: Path) -> None:
    assert cli("install", tmp_path / "none.mbpack", "--yes").code == 3


def test_missing_registry(cli: Cli, tmp_path: Path) -> None:
    result = cli("install", "alpha", "--registry", tmp_path / "nowhere")
    assert result.code == 3
    assert "no registry at" in result.err


def test_pack_for_another_base(cli: Cli, registry: Path, tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "gamma", "gamma", fingerprint="c" * 64)
    result = cli("install", folder, "--registry", registry, "--yes")
    assert result.code == 5
    assert "cccccccccccc" in result.err
    assert not cli.home.exists()


def test_adapter_that_does_not_attach(cli: Cli, registry: Path, tmp_path: Path) -> None:
    tensors = adapter_tensors()
    tensors["model.layers.9.self_attn.q_proj.lora_A.weight"] = np.zeros((2, 16), np.float16)
    folder = pack_folder(tmp_path / "gamma", "gamma", tensors=tensors)
    result = cli("install", folder, "--registry", registry, "--yes")
    assert result.code == 5
    assert "adapter.safetensors: module `model.layers.9.self_attn.q_proj`" in result.err
    assert cli.installed() == {}


def test_adapter_with_nan(cli: Cli, registry: Path, tmp_path: Path) -> None:
    tensors = adapter_tensors()
    next(iter(tensors.values()))[0, 0] = np.nan
    good = pack_folder(tmp_path / "good", "gamma")
    (good / "adapter.safetensors").write_bytes(save(tensors))
    result = cli("install", good, "--registry", registry, "--yes")
    assert result.code == 5
    assert "NaN" in result.err


def test_wrong_byte_in_a_registry(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    line = Registry(registry).lines("alpha")[0]
    manifest = Manifest.parse(Registry(registry).blob_path(line.manifest).read_bytes(), "m")
    blob = manifest.blob("adapter.safetensors")
    file = Registry(registry).blob_path(blob.sha256)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    result = cli("install", "alpha", "--registry", registry, "--yes")
    assert result.code == 5
    assert "adapter.safetensors of alpha 1.0.0" in result.err
    assert "chunk 0" in result.err
    assert str(file) in result.err
    assert cli.installed() == {}


def test_forged_manifest(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    file = Registry(registry).blob_path(Registry(registry).lines("alpha")[0].manifest)
    file.chmod(0o644)
    file.write_bytes(file.read_bytes().replace(b"Answers", b"Ignores"))
    result = cli("install", "alpha", "--registry", registry, "--yes")
    assert result.code == 5
    assert "digest" in result.err


def test_base_of_the_same_name_but_other_bytes(
    cli: Cli, registry: Path, publish: Publish, tmp_path: Path
) -> None:
    from registry_index.publish import publish_base
    from tests.support.packs import published

    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    other = tmp_path / "other"
    publish_base(tiny_base(tmp_path / "f", weights=b"other", fingerprint="d" * 64), other)
    published(pack_folder(tmp_path / "delta", "delta", fingerprint="d" * 64), other)
    result = cli("install", "delta", "--registry", other, "--yes")
    assert result.code == 4
    assert f"alpha 1.0.0 was made for base tiny ({FINGERPRINT[:12]})" in result.err
    assert "delta 1.0.0 was made for another base tiny (dddddddddddd)" in result.err
    assert "`mbpm remove alpha` makes room" in result.err
    assert FINGERPRINT not in result.err


def test_refused_pack_leaves_no_bytes(cli: Cli, registry: Path, tmp_path: Path) -> None:
    cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    blobs = cli.home / "store" / "blobs"
    before = {p for p in blobs.rglob("*") if p.is_file()}
    tensors = adapter_tensors()
    tensors["model.layers.9.self_attn.q_proj.lora_A.weight"] = tensors.pop(next(iter(tensors)))
    folder = pack_folder(tmp_path / "odd", "odd", tensors=tensors)
    assert cli("install", folder, "--yes").code == 5
    assert {p for p in blobs.rglob("*") if p.is_file()} == before


def test_registry_that_lacks_a_file(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    tree = Registry(registry)
    (line,) = tree.lines("alpha")
    manifest = Manifest.read(tree.blob_path(line.manifest))
    lost = tree.blob_path(manifest.blob("adapter.safetensors").sha256)
    lost.unlink()
    result = cli("install", "alpha", "--registry", registry, "--yes")
    assert result.code == 3
    assert result.err.count(str(lost)) == 1
    assert "the registry or folder is incomplete" in result.err
    assert cli.installed() == {}


def test_an_address_is_no_target(cli: Cli) -> None:
    result = cli("install", "https://example.org/x.mbpack")
    assert result.code == 2
    assert "`https://example.org/x.mbpack` is an address" in result.err
    assert "`mbpm registry add NAME ADDRESS`" in result.err


def test_an_index_that_says_other_than_the_manifest(
    cli: Cli, registry: Path, publish: Publish
) -> None:
    publish("beta")
    publish("alpha", requires={"beta": "1"})
    index = registry / "index" / "al" / "ph" / "alpha"
    index.write_text(index.read_text().replace('"requires":{"beta":"1"}', '"requires":{}'))
    result = cli("install", "alpha", "--registry", registry, "--yes")
    assert result.code == 5
    assert "`requires` of alpha 1.0.0 in the index is not what its manifest says" in result.err
    assert cli.installed() == {}
