"""`mbpm outdated`, and `mbpm list --upgradable` which shows the same packs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.packs import pack_folder

Publish = Callable[..., None]


@pytest.fixture
def old(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """A home with `alpha` and `beta`, of which there are newer versions."""
    publish("alpha")
    publish("beta")
    cli.ok("install", "alpha", "beta", "--registry", registry, "--yes")
    publish("alpha", "1.1.0", notes="\nKnows more words.\nAnd more", metric={"pack": 8.0})
    publish("beta", "2.0.0", metric={"pack": 12.0, "gain": 8.0})
    return cli


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_what_is_newer_and_what_is_new(old: Cli) -> None:
    result = old.ok("outdated")
    lines = result.out.splitlines()
    assert lines[0].split() == ["NAME", "INSTALLED", "CANDIDATE", "NEWEST", "EVAL", "NOTE"]
    assert rows(result.out)[1][:4] == ["alpha", "1.0.0", "1.1.0", "1.1.0"]
    assert "perplexity 10 -> 8 (better)" in lines[1]
    assert lines[1].endswith("Knows more words.")
    assert "perplexity 10 -> 12 (worse)" in lines[2]
    assert "`mbpm upgrade`" in result.err
    assert old.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}


def test_only_what_is_named(old: Cli) -> None:
    assert [r[0] for r in rows(old.ok("outdated", "beta").out)[1:]] == ["beta"]
    result = old("outdated", "gamma")
    assert result.code == 3
    assert "pack `gamma` is not installed" in result.err


def test_exit_code(old: Cli) -> None:
    assert old("outdated").code == 0
    assert old("outdated", "--exit-code").code == 10
    assert old("outdated", "--exit-code", "--json").code == 10
    old.ok("upgrade", "--yes")
    result = old("outdated", "--exit-code")
    assert (result.code, result.out) == (0, "")
    assert "everything is up to date" in result.err


def test_held_is_shown_and_is_no_upgrade(old: Cli) -> None:
    old.ok("hold", "alpha")
    old.ok("upgrade", "beta", "--yes")
    result = old("outdated", "--exit-code")
    assert result.code == 0
    assert rows(result.out)[1][:4] == ["alpha", "1.0.0", "-", "1.1.0"]
    assert "kept back: held; Knows more words." in result.out


def test_pinned_below_the_newest(old: Cli, publish: Publish) -> None:
    publish("alpha", "2.0.0")
    old.ok("pin", "alpha@1")
    assert rows(old.ok("outdated", "alpha").out)[1][:4] == ["alpha", "1.0.0", "1.1.0", "2.0.0"]
    document = old.ok("outdated", "alpha", "--json").json
    assert document["packs"][0] == {
        "name": "alpha",
        "installed": "1.0.0",
        "candidate": "1.1.0",
        "newest": "2.0.0",
        "kept_back": document["packs"][0]["kept_back"],
        "notes": "\nKnows more words.\nAnd more",
        "evals": {
            "installed": document["packs"][0]["evals"]["installed"],
            "candidate": document["packs"][0]["evals"]["candidate"],
        },
        "registry": document["packs"][0]["registry"],
    }
    assert "pinned" in document["packs"][0]["kept_back"]
    assert document["packs"][0]["evals"]["installed"]["pack"] == 10.0
    assert document["packs"][0]["evals"]["candidate"]["pack"] == 8.0


def test_what_another_pack_requires(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("words")
    publish("letters", requires={"words": "1"})
    cli.ok("install", "letters", "--registry", registry, "--yes")
    publish("words", "2.0.0")
    result = cli.ok("outdated")
    assert rows(result.out)[1][:4] == ["words", "1.0.0", "-", "2.0.0"]
    assert "kept back: letters 1.0.0 requires `words 1`" in result.out


def test_replaced_by_another_pack(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("law")
    cli.ok("install", "law", "--registry", registry, "--yes")
    publish("legal", "2.0.0", replaces={"law": "*"})
    assert "full-upgrade" in cli.ok("outdated").out
    assert cli("outdated", "--exit-code").code == 0


def test_prereleases(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    publish("alpha", "1.1.0-beta.1")
    assert cli.ok("outdated").out == ""
    assert "1.1.0-beta.1" in cli.ok("outdated", "--pre").out


def test_from_a_folder_only_by_name(
    cli: Cli, registry: Path, publish: Publish, tmp_path: Path
) -> None:
    folder = pack_folder(tmp_path / "mine", "alpha")
    cli.ok("install", folder, "--registry", registry, "--yes")
    publish("alpha", "3.0.0")
    assert cli.ok("outdated", "--registry", registry).out == ""
    assert "3.0.0" in cli.ok("outdated", "alpha", "--registry", registry).out


def test_nothing_installed(cli: Cli) -> None:
    result = cli.ok("outdated", "--exit-code")
    assert "no packs are installed" in result.err
    assert cli.ok("outdated", "--json").json == {"packs": []}
    assert not cli.home.exists()
