"""`mbpm upgrade` and `mbpm full-upgrade`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry_index.tree import index_path
from tests.support.cli import Cli
from tests.support.packs import pack_folder

Publish = Callable[..., None]


def install(cli: Cli, registry: Path, *names: str) -> None:
    cli.ok("install", *names, "--registry", registry, "--yes")


def test_upgrades_all(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    publish("beta")
    install(cli, registry, "alpha", "beta")
    publish("alpha", "1.1.0", notes="Knows more words.\nAnd a second line")
    publish("beta", "2.0.0")
    result = cli.ok("upgrade", "--yes")
    assert "upgrade    alpha 1.0.0 -> 1.1.0\n             Knows more words.\n" in result.out
    assert "second line" not in result.out
    assert "upgraded beta 1.0.0 -> 2.0.0" in result.err
    assert cli.installed() == {"alpha": "1.1.0", "beta": "2.0.0"}
    cli.ok("verify")


def test_a_named_pack_that_is_removed_meanwhile_does_not_come_back(
    cli: Cli, registry: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mbpm import upgrades

    publish("alpha")
    install(cli, registry, "alpha")
    publish("alpha", "1.1.0")
    look = upgrades.lines_of

    def slowly(*arguments: Any) -> object:
        Cli(cli.home).ok("remove", "alpha", "--yes")
        return look(*arguments)

    monkeypatch.setattr(upgrades, "lines_of", slowly)
    result = cli("upgrade", "alpha", "--yes")
    assert result.code == 3
    assert "pack `alpha` is not installed any more" in result.err
    assert "hint: `mbpm install alpha` installs it again" in result.err
    assert cli.installed() == {}


def test_upgrades_only_what_is_named(cli: Cli, registry: Path, publish: Publish) -> None:
    for name in ("alpha", "beta"):
        publish(name)
    install(cli, registry, "alpha", "beta")
    for name in ("alpha", "beta"):
        publish(name, "1.1.0")
    cli.ok("upgrade", "beta", "--yes")
    assert cli.installed() == {"alpha": "1.0.0", "beta": "1.1.0"}


def test_nothing_to_do(cli: Cli, registry: Path, publish: Publish) -> None:
    assert "no packs are installed" in cli.ok("upgrade").err
    publish("alpha")
    install(cli, registry, "alpha")
    assert "everything is up to date" in cli.ok("upgrade").err
    assert cli.ok("upgrade", "--json").json["changed"] is False


def test_a_pack_that_is_not_installed(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    install(cli, registry, "alpha")
    result = cli("upgrade", "alpa")
    assert result.code == 3
    assert "did you mean `alpha`?" in result.err


def test_dry_run_is_short_s(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    install(cli, registry, "alpha")
    publish("alpha", "1.1.0")
    document = cli.ok("upgrade", "-s", "--json").json
    assert document["plan"]["packs"][0]["action"] == "upgrade"
    assert cli.installed() == {"alpha": "1.0.0"}


def test_held_stays_and_says_so(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    install(cli, registry, "alpha")
    publish("alpha", "1.1.0")
    assert "alpha 1.0.0: held" in cli.ok("hold", "alpha").err
    result = cli.ok("upgrade", "--yes")
    assert "kept back  alpha 1.0.0 (1.1.0 exists; held)" in result.out
    assert cli.installed() == {"alpha": "1.0.0"}
    cli.ok("unhold", "alpha")
    cli.ok("upgrade", "--yes")
    assert cli.installed() == {"alpha": "1.1.0"}


def test_pinned_stays_in_its_range(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    install(cli, registry, "alpha")
    publish("alpha", "1.5.0")
    publish("alpha", "2.0.0")
    cli.ok("pin", "alpha@1")
    result = cli.ok("upgrade", "--yes")
    assert cli.installed() == {"alpha": "1.5.0"}
    result = cli.ok("upgrade", "--yes")
    assert "2.0.0 exists" in result.out
    cli.ok("unpin", "alpha")
    cli.ok("upgrade", "--yes")
    assert cli.installed() == {"alpha": "2.0.0"}


def test_never_breaks_what_is_installed(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    publish("beta", requires={"alpha": "1"})
    install(cli, registry, "beta")
    publish("alpha", "2.0.0")
    result = cli.ok("upgrade", "--yes")
    assert "kept back  alpha 1.0.0 (2.0.0 exists; " in result.out
    assert "beta 1.0.0 requires" in result.out
    publish("beta", "2.0.0", requires={"alpha": "2"})
    cli.ok("upgrade", "--yes")
    assert cli.installed() == {"alpha": "2.0.0", "beta": "2.0.0"}


def test_brings_what_a_new_version_requires(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    install(cli, registry, "alpha")
    publish("words")
    publish("alpha", "1.1.0", requires={"words": "1"})
    result = cli.ok("upgrade", "--yes")
    assert f"install    words 1.0.0 from {registry} (required by alpha 1.1.0)" in result.out
    assert cli.installed() == {"alpha": "1.1.0", "words": "1.0.0"}


def test_only_full_upgrade_replaces(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("law")
    install(cli, registry, "law")
    publish("legal", "2.0.0", replaces={"law": "*"})
    result = cli.ok("upgrade", "--yes")
    assert cli.installed() == {"law": "1.0.0"}
    assert "full-upgrade" in result.out + result.err
    result = cli.ok("full-upgrade", "--yes")
    assert "remove     law 1.0.0 (replaced by legal 2.0.0)" in result.out
    assert cli.installed() == {"legal": "2.0.0"}


def test_pack_from_a_folder_is_upgraded_only_by_name(
    cli: Cli, registry: Path, publish: Publish, tmp_path: Path
) -> None:
    publish("beta")
    install(cli, registry, "beta")
    folder = pack_folder(tmp_path / "mine", "alpha")
    cli.ok("install", folder, "--registry", registry, "--yes")
    publish("alpha", "3.0.0")
    cli.ok("upgrade", "--registry", registry, "--yes")
    assert cli.installed()["alpha"] == "1.0.0"
    cli.ok("upgrade", "alpha", "--registry", registry, "--yes")
    assert cli.installed()["alpha"] == "3.0.0"


def test_downgrade_by_exact_version(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    publish("alpha", "1.1.0")
    install(cli, registry, "alpha")
    assert cli.installed() == {"alpha": "1.1.0"}
    result = cli.ok("install", "alpha@=1.0.0", "--registry", registry, "--yes")
    assert "downgrade  alpha 1.1.0 -> 1.0.0" in result.out
    assert cli.installed() == {"alpha": "1.0.0"}


def test_keeps_the_auto_mark(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    publish("beta", requires={"alpha": "1"})
    install(cli, registry, "beta")
    publish("alpha", "1.1.0")
    cli.ok("upgrade", "alpha", "--yes")
    assert cli.installed()["alpha"] == "1.1.0"
    cli.ok("remove", "beta", "--yes")
    cli.ok("autoremove", "--yes")
    assert cli.installed() == {}


def test_a_registry_that_is_gone_is_no_up_to_date(
    cli: Cli, registry: Path, publish: Publish
) -> None:
    publish("alpha")
    install(cli, registry, "alpha")
    registry.rename(registry.with_name("gone"))
    result = cli.ok("upgrade")
    assert f"`alpha` came from the registry {registry}, which is gone" in result.err


def test_a_publisher_that_changes_is_said(cli: Cli, registry: Path, tmp_path: Path) -> None:
    for version, publisher in (("1.0.0", "Ada"), ("1.1.0", "Mallory")):
        folder = pack_folder(tmp_path / version, "alpha", version)
        words = ("publish", folder, "--registry", registry, "--yes")
        cli.ok(*words, "--publisher", publisher)
        cli.ok(
            "upgrade" if version == "1.1.0" else "install",
            *(() if version == "1.1.0" else ("alpha", "--registry", registry)),
            "--yes",
        )
    (record,) = cli.ok("list", "--json").json["packs"]
    assert record["publisher"] == "Mallory"
    cli.ok("undo", "--yes")
    result = cli.ok("upgrade", "--dry-run")
    assert "alpha 1.0.0 was published by Ada, and 1.1.0 by Mallory" in result.err


def test_what_replaces_a_wanted_pack_is_wanted(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("old")
    cli.ok("install", "old", "--registry", registry, "--yes")
    publish("new", replaces={"old": "*"})
    kept = cli.ok("upgrade", "--dry-run").out
    assert "kept back  old 1.0.0 (its replacement `new`" in kept
    cli.ok("full-upgrade", "--yes")
    assert "everything installed is wanted or needed" in cli.ok("autoremove").err
    assert cli.installed() == {"new": "1.0.0"}


def test_what_a_registry_says_passes_for_no_message_of_ours(
    cli: Cli, registry: Path, publish: Publish
) -> None:
    publish("alpha")
    index = registry / "index" / index_path("alpha")
    (line,) = map(json.loads, index.read_text().splitlines())
    index.write_text(json.dumps({**line, "forced": ["no gain\nerror: your home is broken"]}) + "\n")
    result = cli.ok("install", "alpha", "--registry", registry, "--dry-run")
    assert "in spite of: no gain error: your home is broken\n" in result.err
