"""`mbpm show`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from registry_index.tree import Registry
from specs.manifest import Manifest
from tests.support.cli import Cli
from tests.support.packs import pack_folder

Publish = Callable[..., None]


@pytest.mark.parametrize("installed", [False, True])
def test_shows_purpose_gain_and_versions(
    cli: Cli, registry: Path, publish: Publish, installed: bool
) -> None:
    publish("alpha", requires={})
    if installed:
        cli.ok("install", "alpha", "--registry", registry, "--yes")
    publish("alpha", "1.1.0", requires={"beta": "1"})
    result = cli.ok("show", "alpha", "--registry", registry)
    assert result.out.startswith(f"alpha {'1.0.0' if installed else '1.1.0'}: Answers questions")
    assert "perplexity: 20 -> 10, gain 10 (8 to 12), 100 held-out rows" in result.out
    assert "versions   1.1.0, 1.0.0" in result.out
    assert ("beta 1" in result.out) != installed
    document = cli.ok("show", "alpha", "--registry", registry, "--json").json
    assert bool(document["installed"]) == installed
    assert document["evals"]["metrics"][0]["name"] == "perplexity"
    assert document["digest"] == (Registry(registry).lines("alpha")[0 if installed else 1].manifest)


def test_installed_pack_without_its_registry(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    assert "alpha 1.0.0" in cli.ok("show", "alpha").out


def test_what_force_overrode_is_shown(cli: Cli, registry: Path, tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "alpha", metric={"gain_low": -1.0})
    cli.ok("publish", folder, "--registry", registry, "--yes", "--force")
    for _ in range(2):
        shown = cli.ok("show", "alpha", "--registry", registry)
        assert "published in spite of a failed gate: no gain shown on `perplexity`" in shown.err
        (reason,) = cli.ok("show", "alpha", "--registry", registry, "--json").json["forced"]
        assert "must begin above 0" in reason
        cli.ok("install", "alpha", "--registry", registry, "--yes")


def test_unknown_pack(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    result = cli("show", "alpah", "--registry", registry)
    assert result.code == 3
    assert "did you mean `alpha`?" in result.err
    assert cli("show", "No Such Name").code == 2


def test_registry_whose_evals_were_changed(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    index = Registry(registry)
    raw = index.blob_path(index.lines("alpha")[0].manifest).read_bytes()
    file = index.blob_path(Manifest.parse(raw, "m").blob("evals.json").sha256)
    file.chmod(0o644)
    file.write_bytes(file.read_bytes().replace(b"10", b"99"))
    result = cli("show", "alpha", "--registry", registry)
    assert result.code == 5
    assert "digest" in result.err


def test_another_version_by_requirement(cli: Cli, registry: Path, publish) -> None:
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        publish("alpha", version)
    words = ("--registry", registry, "--json")
    assert cli.ok("show", "alpha@1", *words).json["manifest"]["version"] == "1.1.0"
    cli.ok("install", "alpha@=1.0.0", "--registry", registry, "--yes")
    assert cli.ok("show", "alpha", *words).json["manifest"]["version"] == "1.0.0"
    assert cli.ok("show", "alpha@2", *words).json["manifest"]["version"] == "2.0.0"
    result = cli("show", "alpha@3", "--registry", registry)
    assert result.code == 3
    assert "no version of `alpha` is `3`" in result.err
    assert cli("show", "alpha@x").code == 2


def test_words_of_a_pack_pass_for_no_line_of_ours(
    cli: Cli, registry: Path, publish: Publish
) -> None:
    publish("medic", description="Answers\npublisher  A hospital", license="MIT\ndigest     abc")
    lines = cli.ok("show", "medic", "--registry", registry).out.splitlines()
    assert lines[0] == "medic 1.0.0: Answers publisher A hospital"
    assert "licence    MIT digest abc" in lines
    assert not any(line.startswith("publisher") for line in lines)
