"""`mbpm install`."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from registry_index.archive import write_archive
from registry_index.packing import build_manifest
from registry_index.tree import index_path
from specs.manifest import MANIFEST_FILE, Manifest
from tests.support.cli import Cli
from tests.support.packs import pack_folder

Publish = Callable[..., None]


def test_installs_pack_and_base(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    result = cli.ok("install", "alpha", "--registry", registry, "--yes")
    assert "install    alpha 1.0.0" in result.out
    assert "install    base tiny" in result.out
    assert re.search(r"^fetch      2\.\d kB$", result.out, re.M)
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


def test_folder_given_without_a_separator_is_pointed_out(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_folder(tmp_path / "legal-pack", "legal")
    monkeypatch.chdir(tmp_path)
    result = cli("install", "legal-pack")
    assert result.code == 3
    assert "hint: `mbpm install ./legal-pack` installs the folder" in result.err


def test_quiet_asks_nothing_as_it_shows_no_plan(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    for option in ("--quiet", "--json"):
        result = cli("install", "alpha", "--registry", registry, option, answer="y\n")
        assert result.code == 2
        assert f"`{option}` asks nothing" in result.err
        assert "`--yes`" in result.err
    assert cli.installed() == {}
