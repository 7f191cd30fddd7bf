"""`mbpm publish`."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry_index.tree import Registry
from tests.support.cli import Cli
from tests.support.packs import adapter_tensors, pack_folder

NO_GAIN = {"gain_low": -1.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pack_folder(tmp_path / "legal-pack", "legal", "1.2.0")


def test_what_is_published_installs_on_another_home(
    cli: Cli, registry: Path, folder: Path, tmp_path: Path
) -> None:
    result = cli.ok("publish", folder, "--registry", registry, "--yes")
    assert f"publish  legal 1.2.0 to {registry}\n" in result.out
    assert "attach   4 of 4 modules of tiny" in result.out
    assert "gain     perplexity: 20 -> 10, 100 rows" in result.out
    assert f"\n\nhint: install it with `mbpm install legal --registry {registry}`" in result.err
    other = Cli(tmp_path / "another-home")
    other.ok("install", "legal", "--registry", registry, "--yes")
    assert other.installed() == {"legal": "1.2.0"}
    other.ok("verify")


def test_json(cli: Cli, registry: Path, folder: Path) -> None:
    document = cli.ok("publish", folder, "--registry", registry, "--yes", "--json").json
    (line,) = Registry(registry).lines("legal")
    assert document["published"] is True
    assert document["forced"] == []
    assert document["manifest"] == line.manifest
    assert document["size"] == line.size


def test_dry_run_changes_nothing(cli: Cli, registry: Path, folder: Path) -> None:
    before = sorted(registry.rglob("*"))
    assert cli.ok("publish", folder, "--registry", registry, "--dry-run").out
    document = cli.ok("publish", folder, "--registry", registry, "--dry-run", "--json").json
    assert document["published"] is False
    assert sorted(registry.rglob("*")) == before


def test_dry_run_makes_no_registry(cli: Cli, registry: Path, folder: Path, tmp_path: Path) -> None:
    cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    result = cli("publish", folder, "--registry", tmp_path / "new", "--dry-run")
    # an installed base is not enough: those who install from the registry need its card
    assert result.code == 3
    assert not (tmp_path / "new").exists()


def test_asks_before_it_publishes(cli: Cli, registry: Path, folder: Path) -> None:
    nobody = cli("publish", folder, "--registry", registry)
    assert nobody.code == 2
    assert "`--yes`" in nobody.err
    no = cli("publish", folder, "--registry", registry, answer="n\n")
    assert no.code == 1
    assert "nothing was changed" in no.err
    assert Registry(registry).names() == []
    assert cli("publish", folder, "--registry", registry, answer="y\n").code == 0
    assert Registry(registry).names() == ["legal"]


def test_the_same_version_twice_is_refused(cli: Cli, registry: Path, folder: Path) -> None:
    cli.ok("publish", folder, "--registry", registry, "--yes")
    for more in ((), ("--force",), ("--dry-run",)):
        result = cli("publish", folder, "--registry", registry, "--yes", *more)
        assert result.code == 1
        assert "legal 1.2.0 is already in the registry" in result.err
        assert "\n\nhint: a published version never changes" in result.err


def test_no_gain_is_refused_unless_forced(cli: Cli, registry: Path, tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal", metric=NO_GAIN)
    refused = cli("publish", folder, "--registry", registry, "--yes")
    assert refused.code == 9
    assert "no gain shown on `perplexity`" in refused.err
    assert "`--force`" in refused.err
    assert Registry(registry).names() == []
    forced = cli.ok("publish", folder, "--registry", registry, "--yes", "--force")
    assert "warning: published in spite of this: no gain shown" in forced.err
    assert "no gain shown" in Registry(registry).lines("legal")[0].forced[0]


def test_the_gate_of_the_author_counts(cli: Cli, registry: Path, tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal", gates={"min_gain": 9.0})
    result = cli("publish", folder, "--registry", registry, "--yes")
    assert result.code == 9
    assert "must begin above 9" in result.err


def test_what_does_not_attach_is_refused(cli: Cli, registry: Path, tmp_path: Path) -> None:
    tensors = adapter_tensors()
    tensors["model.layers.7.mlp.lora_A.weight"] = next(iter(tensors.values()))
    folder = pack_folder(tmp_path / "p", "legal", tensors=tensors)
    result = cli("publish", folder, "--registry", registry, "--yes", "--force")
    assert result.code == 5
    assert "`model.layers.7.mlp` does not exist in the base" in result.err


def test_a_directory_of_other_files_is_left_alone(
    cli: Cli, folder: Path, tmp_path: Path, registry: Path
) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "thesis.txt").write_text("mine")
    result = cli("publish", folder, "--registry", documents, "--yes")
    assert result.code == 2
    assert "is not a registry" in result.err
    assert [f.name for f in documents.iterdir()] == ["thesis.txt"]


def test_an_address_is_no_directory(
    cli: Cli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli("publish", folder, "--registry", "https://packs.example.org", "--yes")
    assert result.code == 2
    assert not (tmp_path / "https:").exists()


def test_registry_must_be_named(cli: Cli, folder: Path) -> None:
    result = cli("publish", folder, "--yes")
    assert result.code == 2
    assert "--registry" in result.err
