"""`mbpm bundle`, and `mbpm install` of what it makes."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from registry_index.bundle import read_bundle
from registry_index.tree import Registry, index_path
from tests.support.bundles import entries, make
from tests.support.cli import Cli
from tests.support.packs import (
    pack_folder,
)

Publish = Callable[..., None]


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("somebody opened a socket")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_sockets")
def test_everything_installed_goes_to_a_machine_without_network(
    office: Cli, registry: Path, mbundle: Path, other: Cli, tmp_path: Path
) -> None:
    result = office.ok("bundle", "--output", mbundle)
    assert "pack       letters 1.0.0\n" in result.out
    assert "pack       words 1.0.0 (required)\n" in result.out
    assert "base       tiny\n" in result.out
    assert [f.name for f in mbundle.parent.iterdir()] == ["packs.mbundle"]
    label = str(registry)
    shutil.rmtree(registry)
    shutil.rmtree(tmp_path / "base-files")
    other.ok("--offline", "install", mbundle, "--registry", label, "--yes")
    expected = office.ok("list", "--json").json
    there = other.ok("list", "--json").json
    assert there["packs"] == expected["packs"], "with marks, and the registry they are from"
    assert {p["registry"] for p in there["packs"]} == {label}
    assert [b["name"] for b in there["bases"]] == ["tiny"]
    other.ok("verify")
    assert other.ok("why", "words").out.startswith("words 1.0.0\n`-- letters 1.0.0 requires")


def test_asks_nobody_without_offline_either(
    office: Cli, mbundle: Path, other: Cli, no_sockets: None
) -> None:
    office.ok("bundle", "--output", mbundle)
    other.home.mkdir()
    (other.home / "registries.toml").write_text(
        'format = 1\n[registries.far]\naddress = "http://127.0.0.1:9/packs"\npriority = 900\n'
    )
    other.ok("install", mbundle, "--yes")
    assert sorted(other.installed()) == ["letters", "tone", "words"]


def test_the_same_content_gives_the_same_bytes(office: Cli, mbundle: Path, tmp_path: Path) -> None:
    office.ok("bundle", "--output", mbundle)
    office.ok("bundle", "--output", tmp_path / "again.mbundle")
    assert (tmp_path / "again.mbundle").read_bytes() == mbundle.read_bytes()
    names = [n for n, _ in entries(mbundle.read_bytes())]
    assert names.count(f"blobs/{hashlib.sha256(b'the same words').hexdigest()}") == 1


def test_targets_as_an_empty_machine_would_get_them(
    office: Cli, registry: Path, publish: Publish, mbundle: Path, other: Cli
) -> None:
    """Whatever is installed here, and whatever this machine has."""
    publish("words", "1.5.0")
    publish("big", requires={"__vram": ">=80", "words": "1"})
    result = office.ok("bundle", "big", "--registry", registry, "--output", mbundle, "--json")
    assert [(p["name"], p["version"], p["auto"]) for p in result.json["packs"]] == [
        ("big", "1.0.0", False),
        ("words", "1.5.0", True),
    ]
    refused = other("install", mbundle, "--yes")
    assert refused.code == 4
    assert "needs `__vram >=80`" in refused.err
    other.environ["MBPM_OVERRIDE_VRAM"] = "80"
    other.ok("install", mbundle, "--yes")
    assert other.installed() == {"big": "1.0.0", "words": "1.5.0"}


def test_only_what_is_named(office: Cli, mbundle: Path, other: Cli) -> None:
    office.ok("bundle", "--output", mbundle)
    other.ok("install", mbundle, "words", "--yes")
    assert other.installed() == {"words": "1.0.0"}
    assert other.ok("list", "--manual", "--json").json["packs"][0]["name"] == "words"
    other.ok("install", mbundle, "letters@1", "--no-recommends", "--yes")
    assert sorted(other.installed()) == ["letters", "words"]
    assert other("install", mbundle, "letters@2", "--yes").code == 3
    result = other("install", mbundle, "latters", "--yes")
    assert result.code == 3
    assert "no pack `latters` in" in result.err
    assert "there is letters, tone, words" in result.err


def test_twice(office: Cli, mbundle: Path, other: Cli) -> None:
    office.ok("bundle", "--output", mbundle)
    other.ok("install", mbundle, "--yes")
    result = other.ok("install", mbundle, "--json")
    assert result.json["changed"] is False
    result = other.ok("install", mbundle)
    assert "letters 1.0.0 is installed already" in result.err


def test_dry_runs_change_nothing(office: Cli, mbundle: Path, other: Cli) -> None:
    document = office.ok("bundle", "--output", mbundle, "--dry-run", "--json").json
    assert (document["written"], document["size"], document["fetch_bytes"]) == (False, None, 0)
    assert not mbundle.parent.exists()
    office.ok("bundle", "--output", mbundle)
    result = other.ok("install", mbundle, "--dry-run")
    assert "install    letters 1.0.0" in result.out
    assert not other.home.exists()


def test_the_base_is_installed_there_already(
    office: Cli, registry: Path, mbundle: Path, other: Cli
) -> None:
    office.ok("bundle", "--output", mbundle)
    other.ok("base", "install", "tiny", "--registry", registry, "--yes")
    result = other.ok("--offline", "install", mbundle, "--yes")
    assert "base tiny" not in result.out
    assert other.bases() == ["tiny"]
    other.ok("verify")


def test_beside_what_is_installed_there(
    cli: Cli, registry: Path, publish: Publish, mbundle: Path, other: Cli
) -> None:
    """What is in the bundle comes as it is in it; the rest stays, and is not looked up."""
    publish("alpha")
    publish("words", "1.0.0")
    other.ok("install", "alpha", "words", "--registry", registry, "--yes")
    publish("words", "1.5.0")
    publish("letters", requires={"words": "1"})
    cli.ok("bundle", "letters", "--registry", registry, "--output", mbundle)
    shutil.rmtree(registry)
    result = other.ok("--offline", "install", mbundle, "--yes")
    assert "upgrade    words 1.0.0 -> 1.5.0" in result.out
    assert other.installed() == {"alpha": "1.0.0", "letters": "1.0.0", "words": "1.5.0"}


def test_in_conflict_with_what_is_installed_there(
    cli: Cli, registry: Path, publish: Publish, mbundle: Path, other: Cli
) -> None:
    publish("alpha")
    publish("rival", conflicts={"alpha": "*"})
    other.ok("install", "alpha", "--registry", registry, "--yes")
    cli.ok("bundle", "rival", "--registry", registry, "--output", mbundle)
    result = other("--offline", "install", mbundle, "--yes")
    assert result.code == 4
    assert "rival 1.0.0 conflicts with alpha 1.0.0" in result.err
    assert other.installed() == {"alpha": "1.0.0"}


def test_a_base_alone(cli: Cli, registry: Path, mbundle: Path, other: Cli) -> None:
    cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    cli.ok("bundle", "--output", mbundle)
    result = other.ok("--offline", "install", mbundle, "--yes")
    assert "install    base tiny" in result.out
    assert other.bases() == ["tiny"]
    assert "base tiny is installed already" in other.ok("install", mbundle).err


def test_what_was_yanked_meanwhile(office: Cli, registry: Path, mbundle: Path, other: Cli) -> None:
    index = registry / "index" / index_path("words")
    lines = [x.model_copy(update={"yanked": True}) for x in Registry(registry).lines("words")]
    index.write_bytes(b"".join(x.canonical() for x in lines))
    result = office.ok("bundle", "--output", mbundle)
    assert "warning: words 1.0.0 was yanked from its registry" in result.err
    result = other.ok("--offline", "install", mbundle, "--yes")
    assert "warning: words 1.0.0 was yanked from its registry" in result.err
    assert other.installed()["words"] == "1.0.0"
    refused = office("bundle", "words", "--registry", registry, "--output", mbundle)
    assert refused.code == 4
    assert "is yanked" in refused.err


def test_a_prerelease(
    cli: Cli, registry: Path, publish: Publish, mbundle: Path, other: Cli
) -> None:
    publish("words", "2.0.0-beta.1")
    publish("letters", requires={"words": ">=2.0.0-beta.1"})
    cli.ok("bundle", "letters", "--registry", registry, "--output", mbundle)
    other.ok("install", mbundle, "--yes")
    assert other.installed()["words"] == "2.0.0-beta.1"


def test_upgrades_come_from_where_it_was_from(
    office: Cli, registry: Path, publish: Publish, mbundle: Path, other: Cli
) -> None:
    office.ok("bundle", "--output", mbundle)
    other.ok("registry", "add", "team", registry)
    other.ok("install", mbundle, "--yes")
    publish("words", "1.1.0")
    assert [o["name"] for o in other.ok("outdated", "--json").json["packs"]] == ["words"]
    other.ok("upgrade", "--yes")
    assert other.installed()["words"] == "1.1.0"
    assert json.loads((other.home / "origins.json").read_text())["packs"] == {
        n: str(registry) for n in ("letters", "tone", "words")
    }


def test_repaired_from_the_original_registry(
    office: Cli, registry: Path, mbundle: Path, other: Cli
) -> None:
    office.ok("bundle", "--output", mbundle)
    other.ok("install", mbundle, "--registry", registry, "--yes")
    folder = Path(other.ok("files", "words", "--json").json["folder"])
    for damaged in folder.rglob("adapter.safetensors"):
        damaged.chmod(0o600)
        damaged.write_bytes(b"x" * damaged.stat().st_size)
    assert other("verify").code == 5
    mbundle.unlink()
    other.ok("reinstall", "words", "--yes")
    other.ok("verify")


def test_repaired_from_the_bundle_without_network(
    office: Cli, registry: Path, mbundle: Path, other: Cli, no_sockets: None
) -> None:
    office.ok("bundle", "--output", mbundle)
    other.ok("install", mbundle, "--yes")
    shutil.rmtree(registry)
    folder = Path(other.ok("files", "words", "--json").json["folder"])
    adapter = folder / "adapter.safetensors"
    adapter.chmod(0o600)
    adapter.write_bytes(b"x" * adapter.stat().st_size)
    other.ok("--offline", "install", mbundle, "words", "--reinstall", "--yes")
    other.ok("verify")


def test_a_pack_from_no_registry(
    cli: Cli, registry: Path, publish: Publish, mbundle: Path, other: Cli, tmp_path: Path
) -> None:
    folder = pack_folder(tmp_path / "mine", "mine")
    cli.ok("bundle", folder, "--registry", registry, "--output", mbundle)
    first = mbundle.read_bytes()
    cli.ok("bundle", folder, "--registry", registry, "--output", mbundle)
    assert mbundle.read_bytes() == first
    other.ok("--offline", "install", mbundle, "--yes")
    (record,) = other.ok("list", "--json").json["packs"]
    assert record["registry"] == f"bundle {mbundle}"
    publish("mine", "2.0.0")
    other.ok("upgrade", "--registry", registry, "--yes")
    assert other.installed() == {"mine": "1.0.0"}, "nobody's to upgrade unless it is named"
    other.ok("upgrade", "mine", "--registry", registry, "--yes")
    assert other.installed() == {"mine": "2.0.0"}


def test_a_pack_from_no_registry_is_repaired_from_the_bundle(
    cli: Cli, registry: Path, mbundle: Path, other: Cli, tmp_path: Path
) -> None:
    cli.ok("bundle", pack_folder(tmp_path / "m", "mine"), "--registry", registry, "-o", mbundle)
    other.ok("install", mbundle, "--yes")
    shutil.rmtree(other.home / "store" / "blobs")
    shutil.rmtree(other.home / "store" / "packs")
    other.ok("reinstall", "mine", "--registry", registry, "--yes")
    other.ok("files", "mine")
    make(mbundle, tmp_path)
    shutil.rmtree(other.home / "store" / "packs")
    shutil.rmtree(other.home / "store" / "blobs")
    result = other("reinstall", "mine", "--registry", registry, "--yes")
    assert result.code == 4, "another bundle under the same name is not the same"


def test_passed_on(office: Cli, registry: Path, mbundle: Path, other: Cli, tmp_path: Path) -> None:
    """From a machine that got it from a bundle itself."""
    office.ok("bundle", "--output", mbundle)
    other.ok("install", mbundle, "--registry", registry, "--yes")
    other.ok("bundle", "--output", tmp_path / "again.mbundle")
    assert (tmp_path / "again.mbundle").read_bytes() == mbundle.read_bytes()


def test_what_the_store_lacks_is_fetched(office: Cli, mbundle: Path, other: Cli) -> None:
    for blob in (office.home / "store" / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes().startswith(b"# words"):
            blob.unlink()
    assert office.ok("bundle", "--output", mbundle, "--json").json["fetch_bytes"] == len(
        "# words\n"
    )
    other.ok("install", mbundle, "--yes")
    assert not list(mbundle.parent.glob(".*"))


def test_goes_on_where_it_was_stopped(
    cli: Cli, registry: Path, publish: Publish, mbundle: Path, tmp_path: Path
) -> None:
    publish("words")
    publish("letters", requires={"words": "1"})
    arguments = ["bundle", "letters", "--registry", registry, "--output", mbundle]
    (readme,) = (
        b for b in (registry / "blobs").rglob("*") if b.is_file() and b.read_bytes() == b"# words\n"
    )
    away = readme.rename(tmp_path / "away")
    result = cli(*arguments)
    assert result.code == 3
    assert "README.md of words 1.0.0" in result.err
    assert not mbundle.exists()
    (kept,) = mbundle.parent.iterdir()
    assert kept.name == ".packs.mbundle.download"
    assert cli.ok(*arguments, "--dry-run", "--json").json["fetch_bytes"] > 0
    away.rename(readme)
    for here in (kept / "blobs").rglob("*"):
        if here.is_file():
            # it is not asked for again
            (registry / "blobs" / here.name[:2] / here.name).unlink(missing_ok=True)
    cli.ok(*arguments)
    assert [f.name for f in mbundle.parent.iterdir()] == ["packs.mbundle"]


def test_a_damaged_store_is_noticed(office: Cli, mbundle: Path) -> None:
    for blob in (office.home / "store" / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes().startswith(b"# words"):
            blob.chmod(0o600)
            blob.write_bytes(b"# sword\n")
    result = office("bundle", "--output", mbundle)
    assert result.code == 5
    assert "`mbpm verify`" in result.err
    assert not mbundle.exists()


def test_nothing_to_bundle(cli: Cli, mbundle: Path) -> None:
    result = cli("bundle", "--output", mbundle)
    assert result.code == 3
    assert "nothing is installed" in result.err


def test_wrong_name(office: Cli, tmp_path: Path) -> None:
    result = office("bundle", "--output", tmp_path / "packs.zip")
    assert result.code == 2
    assert "packs.mbundle" in result.err


def test_where_a_bundle_does_not_go(office: Cli, mbundle: Path) -> None:
    office.ok("bundle", "--output", mbundle)
    result = office("download", mbundle)
    assert result.code == 2
    assert f"`mbpm install {mbundle}`" in result.err


# what a bundle says, against what is known


# hostile content


def test_is_read_as_it_was_written(office: Cli, mbundle: Path) -> None:
    office.ok("bundle", "--output", mbundle)
    opened = read_bundle(mbundle)
    assert [p.line.notes for p in opened.content.packs] == ["News", "", ""]
    assert [p.auto for p in opened.content.packs] == [False, True, True]
