"""`mbpm purge`, and what `mbpm remove` leaves behind instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.cli import Cli

Publish = Callable[..., None]


def files(cli: Cli, folder: str) -> list[Path]:
    return [f for f in (cli.home / "store" / folder).rglob("*") if f.is_file()]


def test_remove_keeps_the_bytes_for_undo(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    before = len(files(cli, "blobs"))
    result = cli.ok("remove", "alpha", "--yes")
    assert "at the next `mbpm gc`" in result.out
    assert len(files(cli, "blobs")) == before


def test_purge_frees_at_once(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    result = cli.ok("purge", "alpha", "--yes")
    assert "`mbpm gc`" not in result.out
    assert cli.installed() == {}
    assert files(cli, "packs") == []
    assert len(files(cli, "blobs")) == 2, "the base's card and weights stay"
    cli.ok("verify")


def test_purge_takes_older_versions_along(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    publish("alpha", "2.0.0")
    cli.ok("upgrade", "--yes")
    cli.ok("purge", "alpha", "--yes")
    assert files(cli, "packs") == []


def test_purge_of_what_was_removed_before(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    cli.ok("remove", "alpha", "--yes")
    cli.ok("purge", "alpha", "--yes")
    assert files(cli, "packs") == []
    assert cli("purge", "never-there", "--yes").code == 3


def test_purge_leaves_what_others_share(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    publish("beta")
    cli.ok("install", "alpha", "beta", "--registry", registry, "--yes")
    cli.ok("purge", "alpha", "--yes")
    assert cli.installed() == {"beta": "1.0.0"}
    cli.ok("verify")


def test_purge_leaves_what_another_profile_has(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    cli.ok("--profile", "other", "install", "alpha", "--registry", registry, "--yes")
    cli.ok("purge", "alpha", "--yes")
    cli.ok("--profile", "other", "verify")


def test_required_pack_is_not_purged(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    publish("beta", requires={"alpha": "1"})
    cli.ok("install", "beta", "--registry", registry, "--yes")
    result = cli("purge", "alpha", "--yes")
    assert result.code == 4
    assert "beta 1.0.0 requires alpha" in result.err
