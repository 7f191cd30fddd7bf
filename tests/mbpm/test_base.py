"""`mbpm base`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from registry_index.publish import publish_base
from specs.base_card import BASE_ROUTING_FILE, WEIGHTS_FILE, BaseBlob
from specs.blobs import Blob, FileSource, UrlSource
from tests.support.cli import Cli
from tests.support.packs import tiny_base
from tests.support.servers import Site, serve


def test_lists_offers_and_what_is_installed(cli: Cli, registry: Path) -> None:
    def installed() -> dict[str, bool]:
        rows = cli.ok("base", "list", "--registry", registry, "--json").json["bases"]
        return {row["name"]: row["installed"] for row in rows}

    assert installed()["tiny"] is False
    assert not cli.home.exists()
    cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    assert installed()["tiny"] is True
    assert "tiny" in cli.ok("base", "list").out, "known without its registry too"


def test_install_twice(cli: Cli, registry: Path) -> None:
    result = cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    assert "installed base tiny" in result.err
    assert "memory     4.1 kB when resident" in result.out
    assert "installed already" in cli.ok("base", "install", "tiny", "--registry", registry).err


def test_unknown_base(cli: Cli, registry: Path) -> None:
    result = cli("base", "install", "tinny", "--registry", registry, "--yes")
    assert result.code == 3
    assert "did you mean `tiny`?" in result.err


def test_a_folder_of_the_name_is_hinted_at(
    cli: Cli, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine-base").mkdir()
    (tmp_path / "mine-base" / "card.json").write_text("{}")
    result = cli("base", "install", "mine-base", "--registry", registry, "--yes")
    assert result.code == 3
    assert "`mbpm base install ./mine-base` installs the folder" in result.err


def test_gc_after_remove_frees_the_disk(cli: Cli, registry: Path) -> None:
    cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    assert cli("base", "remove", "tiny").code == 2
    result = cli.ok("base", "remove", "tiny", "--yes")
    assert "remove     base tiny" in result.out
    cli.ok("gc", "--yes")
    assert [f for f in (cli.home / "store").rglob("*") if f.is_file()] == []
    assert cli("base", "remove", "tiny", "--yes").code == 3


def test_base_in_use_stays(cli: Cli, registry: Path, publish: Callable[..., None]) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    result = cli("base", "remove", "tiny", "--yes")
    assert result.code == 4
    assert "alpha 1.0.0 needs base tiny" in result.err
    assert "`mbpm remove alpha`" in result.err
    cli.ok("verify")


def test_files_the_registry_itself_serves(cli: Cli, tmp_path: Path) -> None:
    routing = tmp_path / "routing.safetensors"
    routing.write_bytes(b"calibration")
    card = tiny_base(tmp_path / "files")
    extra = BaseBlob(
        blob=Blob.of_file(routing, BASE_ROUTING_FILE), sources=(FileSource(path="nowhere"),)
    )
    card = card.model_copy(update={"files": (*card.files, extra)})
    publish_base(card, tmp_path / "registry", {BASE_ROUTING_FILE: routing})
    cli.ok("base", "install", "tiny", "--registry", tmp_path / "registry", "--yes")
    cli.ok("base", "verify")


def test_relative_source_is_relative_to_the_card(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tiny_base(tmp_path / "files", sources=(FileSource(path="../weights/tiny.gguf"),))
    publish_base(card, tmp_path / "registry")
    (tmp_path / "files").rename(tmp_path / "registry" / "weights")
    monkeypatch.chdir(tmp_path)
    cli.ok("base", "install", "tiny", "--registry", "registry", "--yes")


def test_second_source_when_the_first_lies(cli: Cli, tmp_path: Path) -> None:
    with serve(Site(files={"/w": b"not really a model"})) as site:
        liar = tmp_path / "liar"
        liar.write_bytes(b"not really a modem")
        sources = (FileSource(path=str(liar)), UrlSource(url=site.url + "/w"))
        publish_base(tiny_base(tmp_path / "files", sources=sources), tmp_path / "registry")
        result = cli.ok("base", "install", "tiny", "--registry", tmp_path / "registry", "--yes")
    assert f"{WEIGHTS_FILE} of base tiny from file {liar}: chunk 0" in result.err
    cli.ok("base", "verify")


def test_offline_without_a_local_source(cli: Cli, tmp_path: Path) -> None:
    sources = (UrlSource(url="http://127.0.0.1:9/w"),)
    publish_base(tiny_base(tmp_path / "files", sources=sources), tmp_path / "registry")
    words = ["base", "install", "tiny", "--registry", tmp_path / "registry", "--yes"]
    result = cli("--offline", *words)
    assert result.code == 6
    assert "`--offline`" in result.err
    cli.environ["MBPM_OFFLINE"] = "1"
    assert cli(*words).code == 6
    assert cli.bases() == []


def test_newer_card_of_the_same_weights_fetches_nothing(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "registry"
    publish_base(tiny_base(tmp_path / "files"), root)
    cli.ok("base", "install", "tiny", "--registry", root, "--yes")
    changed = tiny_base(tmp_path / "files", description="Better described")
    (root / "bases" / "tiny.json").write_bytes(changed.canonical())
    result = cli.ok("base", "install", "tiny", "--registry", root, "--yes")
    assert "fetch      0 B" in result.out
    assert "Better described" in cli.ok("base", "list").out
    cli.ok("base", "verify")
