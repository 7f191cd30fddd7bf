"""`mbpm purge`, and what `mbpm remove` leaves behind instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.cli import Cli
from tests.support.derived import DerivedHome

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


def test_plan_tells_what_is_freed_and_what_another_profile_keeps(
    cli: Cli, registry: Path, publish: Publish
) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    cli.ok("--profile", "other", "install", "alpha", "--registry", registry, "--yes")
    publish("alpha", "2.0.0")
    cli.ok("upgrade", "--yes")
    plan = cli.ok("purge", "alpha", "-s", "--json").json["plan"]
    (pack,) = plan["packs"]
    assert (pack["action"], pack["old"]) == ("remove", "2.0.0"), "alpha 1.0.0 stays in `other`"
    (record,) = cli.ok("list", "--json").json["packs"]
    before = {f.name: f.stat().st_size for f in files(cli, "blobs")}
    cli.ok("purge", "alpha", "--yes")
    gone = before.keys() - {f.name for f in files(cli, "blobs")}
    assert -pack["disk_bytes"] == sum(before[n] for n in gone - {record["manifest"]})
    cli.ok("remove", "--profile", "other", "alpha", "--yes")
    result = cli.ok("purge", "alpha", "-s")
    assert "purge      alpha 1.0.0" in result.out


def test_purge_of_what_was_removed_asks_and_says_so(
    cli: Cli, registry: Path, publish: Publish
) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    cli.ok("remove", "alpha", "--yes")
    assert cli("purge", "alpha").code == 2
    result = cli.ok("purge", "alpha", "--yes")
    assert "purge      alpha 1.0.0" in result.out
    assert "purged alpha 1.0.0" in result.err
    current = cli.ok("history", "--json").json["current"]
    assert current == 2, "what is installed did not change"
    result = cli.ok("purge", "alpha")
    assert "nothing of alpha is left" in result.err
    assert cli.ok("purge", "alpha", "--json").json["changed"] is False


def test_purge_is_refused_while_nobody_knows_what_a_profile_needs(
    cli: Cli, registry: Path, publish: Publish
) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    cli.ok("--profile", "other", "install", "alpha", "--registry", registry, "--yes")
    (cli.home / "profiles" / "other" / "current").write_text("?")
    assert cli("purge", "alpha", "--yes").code == 5
    assert cli.installed() == {"alpha": "1.0.0"}


def test_purge_takes_the_index_of_its_passages_along(tmp_path: Path) -> None:
    place = DerivedHome(tmp_path)
    place.change(place.pack("legal", knows={"Leases": "A lease ends when its term does."}))
    assert [n for n in place.derived() if n.startswith("knowledge")]
    Cli(place.home.path).ok("purge", "legal", "--yes")
    assert place.derived() == []
