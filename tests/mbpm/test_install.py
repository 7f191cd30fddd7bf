"""`mbpm install`."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from registry_index.archive import write_archive
from registry_index.packing import build_manifest
from registry_index.tree import Registry, index_path
from specs.manifest import MANIFEST_FILE, Manifest
from tests.support.cli import Cli
from tests.support.packs import FINGERPRINT, adapter_tensors, pack_folder, tiny_base

Publish = Callable[..., None]


def test_installs_pack_and_base(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    result = cli.ok("install", "alpha", "--registry", registry, "--yes")
    assert "install    alpha 1.0.0" in result.out
    assert "install    base tiny" in result.out
    assert "fetch      2.0 kB" in result.out
    assert "memory     " in result.out
    assert cli.installed() == {"alpha": "1.0.0"}
    assert cli.bases() == ["tiny"]


def test_pack_folder_is_complete(cli: Cli, registry: Path, publish: Publish) -> None:
    from mbpm.home import Home

    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    home = Home(cli.home)
    (folder,) = home.pack_dirs()
    manifest = Manifest.parse((folder / MANIFEST_FILE).read_bytes(), "manifest")
    assert {f.name for f in folder.iterdir()} == {MANIFEST_FILE} | {b.path for b in manifest.blobs}
    base = home.base_dir(home.default_base())
    assert {f.name for f in base.iterdir()} == {"card.json", "weights.gguf"}
    blob = home.store.blob_path(manifest.blobs[0].sha256)
    assert blob.samefile(folder / manifest.blobs[0].path), "linked, not copied"


def test_copies_where_links_do_not_work(
    cli: Cli, registry: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    publish("alpha")
    monkeypatch.setattr(os, "link", refuse)
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    cli.ok("verify")


def test_second_install_fetches_nothing(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    shutil.rmtree(registry / "blobs")
    result = cli.ok("install", "alpha", "--registry", registry)
    assert "alpha 1.0.0 is installed already" in result.err
    assert result.out == ""
    assert cli.ok("install", "alpha", "--json", "--registry", registry).json["changed"] is False


def test_dry_run_changes_nothing(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    result = cli.ok("install", "alpha", "--registry", registry, "--dry-run")
    assert "install    alpha 1.0.0" in result.out
    assert not cli.home.exists()


def test_no_terminal_names_the_option(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    result = cli("install", "alpha", "--registry", registry)
    assert result.code == 2
    assert "`--yes`" in result.err
    assert not cli.home.exists()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 0), ("n\n", 1), ("", 1)])
def test_asks_at_a_terminal(
    cli: Cli, registry: Path, publish: Publish, answer: str, code: int
) -> None:
    publish("alpha")
    result = cli("install", "alpha", "--registry", registry, answer=answer)
    assert result.code == code
    assert cli.installed() == ({} if code else {"alpha": "1.0.0"})
    assert ("nothing was changed" in result.err) == bool(code)


def test_json_document(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    document = cli.ok("install", "alpha", "--registry", registry, "--yes", "--json").json
    assert document["changed"] is True
    assert document["generation"] == 1
    assert document["plan"]["packs"][0]["name"] == "alpha"
    assert document["plan"]["bases"][0]["name"] == "tiny"


def test_requirement_picks_the_version(cli: Cli, registry: Path, publish: Publish) -> None:
    for version in ("1.0.0", "1.4.0", "2.0.0", "3.0.0-rc.1"):
        publish("alpha", version)
    cli.ok("install", "alpha@1", "--registry", registry, "--yes")
    assert cli.installed() == {"alpha": "1.4.0"}
    assert "alpha 1.4.0 is installed already" in (
        cli.ok("install", "alpha", "--registry", registry).err
    )
    result = cli.ok("install", "alpha@2", "--registry", registry, "--yes")
    assert "upgrade    alpha 1.4.0 -> 2.0.0" in result.out
    assert cli.installed() == {"alpha": "2.0.0"}


def test_old_version_leaves_the_disk_at_the_next_gc(
    cli: Cli, registry: Path, publish: Publish
) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    publish("alpha", "2.0.0")
    cli.ok("install", "alpha@2", "--registry", registry, "--yes")
    assert len(list((cli.home / "store" / "packs").iterdir())) == 2
    cli.ok("gc", "--yes")
    assert len(list((cli.home / "store" / "packs").iterdir())) == 1
    cli.ok("verify")


def test_what_it_requires_comes_along(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    publish("beta", requires={"alpha": "1"})
    result = cli.ok("install", "beta", "--registry", registry, "--yes")
    assert "install    alpha 1.0.0" in result.out
    assert cli.ok("list", "--auto").out.splitlines()[1].split()[0] == "alpha"


def test_unknown_name_suggests_one(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("medical")
    result = cli("install", "medcal", "--registry", registry, "--yes")
    assert result.code == 3
    assert "did you mean `medical`?" in result.err


@pytest.mark.parametrize("target", ["Alpha", "al pha", "alpha@nonsense", "none"])
def test_malformed_target(cli: Cli, target: str) -> None:
    assert cli("install", target).code == 2


def test_folder_and_archive(cli: Cli, registry: Path, tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "gamma", "gamma")
    cli.ok("install", folder, "--registry", registry, "--yes")
    assert f"folder {folder}" in cli.ok("list").out
    manifest, files = build_manifest(folder)
    archive = tmp_path / "gamma-1.0.0.mbpack"
    write_archive(manifest, files, archive)
    assert "installed already" in cli.ok("install", archive, "--registry", registry).err
    cli.ok("remove", "gamma", "--yes")
    cli.ok("install", archive, "--registry", registry, "--yes")
    assert f"archive {archive}" in cli.ok("list").out
    cli.ok("verify")


def test_changed_folder_replaces_what_it_installed(
    cli: Cli, registry: Path, tmp_path: Path
) -> None:
    folder = pack_folder(tmp_path / "gamma", "gamma")
    cli.ok("install", folder, "--registry", registry, "--yes")
    (folder / "README.md").write_text("# better\n")
    cli.ok("install", folder, "--registry", registry, "--yes")
    cli.ok("verify")
    assert cli.installed() == {"gamma": "1.0.0"}


def test_folder_without_a_path_is_pointed_out(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_folder(tmp_path / "Gamma", "gamma")
    monkeypatch.chdir(tmp_path)
    result = cli("install", "Gamma")
    assert result.code == 2
    assert "`mbpm install ./Gamma`" in result.err


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


def test_yanked_version_is_passed_over(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    publish("alpha", "1.1.0")
    index = registry / "index" / index_path("alpha")
    index.write_text(index.read_text().replace('"1.1.0","yanked":false', '"1.1.0","yanked":true'))
    text = index.read_text().splitlines()
    text[1] = text[1].replace('"yanked":false', '"yanked":true')
    index.write_text("\n".join(text) + "\n")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    assert cli.installed() == {"alpha": "1.0.0"}
    result = cli("install", "alpha@=1.1.0", "--registry", registry, "--yes")
    assert result.code == 4
    assert "1.1.0 is yanked" in result.err


def test_no_room_is_known_before_fetching(
    cli: Cli, registry: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("alpha")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 5000, 5000))
    result = cli("install", "alpha", "--registry", registry, "--yes")
    assert result.code == 8
    assert "5.0 kB are free" in result.err
    monkeypatch.undo()
    assert cli.installed() == {}


@pytest.mark.parametrize("moment", range(6))
def test_disk_full_leaves_what_was(
    cli: Cli, registry: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    publish("alpha")
    publish("beta")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    calls = 0
    real = os.fsync

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > moment:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        result = cli("install", "beta", "--registry", registry, "--yes")
    assert result.code == 8
    assert "disk is full" in result.err
    assert "Traceback" not in result.err
    assert cli.installed() == {"alpha": "1.0.0"}
    cli.ok("install", "beta", "--registry", registry, "--yes")
    cli.ok("verify")


def test_home_that_cannot_be_written(registry: Path, publish: Publish, tmp_path: Path) -> None:
    publish("alpha")
    (tmp_path / "file").write_text("")
    result = Cli(tmp_path / "file" / "home")("install", "alpha", "--registry", registry, "--yes")
    assert result.code == 2
    assert result.err.count("error:") == 1
    assert "Traceback" not in result.err


def test_damaged_pack_is_repaired(cli: Cli, registry: Path, publish: Publish) -> None:
    from mbpm.home import Home

    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    (folder,) = Home(cli.home).pack_dirs()
    file = folder / "adapter.safetensors"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert cli("verify").code == 5
    assert "installed already" in cli.ok("install", "alpha", "--registry", registry).err
    result = cli.ok("install", "alpha", "--registry", registry, "--reinstall", "--yes")
    assert "repair     alpha 1.0.0" in result.out
    cli.ok("verify")


def test_deleted_files_are_noticed(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    shutil.rmtree(cli.home / "store")
    assert cli("show", "alpha").code == 5
    assert cli("verify").code == 5
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    assert cli.ok("verify").out.count("ok") == 2


def test_lost_store_does_not_stop_a_removal(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    shutil.rmtree(cli.home / "store")
    cli.ok("remove", "alpha", "--yes")
    cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    cli.ok("verify")


def test_first_registry_decides_about_a_name(
    cli: Cli, registry: Path, publish: Publish, tmp_path: Path
) -> None:
    from tests.support.packs import published, registry_with_base

    publish("alpha")
    other = tmp_path / "other"
    registry_with_base(other, tmp_path / "more-files")
    published(pack_folder(tmp_path / "evil", "alpha", "9.0.0"), other)
    cli.ok("install", "alpha", "--registry", registry, "--registry", other, "--yes")
    assert cli.installed() == {"alpha": "1.0.0"}


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


def test_folder_given_without_a_separator_is_pointed_out(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_folder(tmp_path / "legal-pack", "legal")
    monkeypatch.chdir(tmp_path)
    result = cli("install", "legal-pack")
    assert result.code == 3
    assert "hint: `mbpm install ./legal-pack` installs the folder" in result.err


def test_refused_pack_leaves_no_bytes(cli: Cli, registry: Path, tmp_path: Path) -> None:
    cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    blobs = cli.home / "store" / "blobs"
    before = {p for p in blobs.rglob("*") if p.is_file()}
    tensors = adapter_tensors()
    tensors["model.layers.9.self_attn.q_proj.lora_A.weight"] = tensors.pop(next(iter(tensors)))
    folder = pack_folder(tmp_path / "odd", "odd", tensors=tensors)
    assert cli("install", folder, "--yes").code == 5
    assert {p for p in blobs.rglob("*") if p.is_file()} == before


def test_quiet_asks_nothing_as_it_shows_no_plan(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    for option in ("--quiet", "--json"):
        result = cli("install", "alpha", "--registry", registry, option, answer="y\n")
        assert result.code == 2
        assert f"`{option}` asks nothing" in result.err
        assert "`--yes`" in result.err
    assert cli.installed() == {}


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
