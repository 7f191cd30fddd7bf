"""`mbpm registry` and `mbpm yank`, with registries in folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli

Publish = Callable[..., None]


def listed(cli: Cli) -> list[tuple[str, int]]:
    found = cli.ok("registry", "list", "--json").json["registries"]
    return [(r["name"], r["priority"]) for r in found]


def test_add_list_use_remove(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    result = cli.ok("registry", "add", "team", registry, "--json")
    assert result.json["packs"] == 1
    assert listed(cli) == [("bundled", 100), ("team", 50)]
    table = cli.ok("registry", "list").out
    assert "read in place" in table
    assert str(registry) in table
    cli.ok("install", "alpha", "--yes")
    assert "medical" in cli.ok("search").out
    result = cli.ok("registry", "remove", "team")
    assert "installed packs came from it and get no upgrades now: alpha" in result.err
    assert listed(cli) == [("bundled", 100)]


def test_priorities_order_the_list(cli: Cli, registry: Path, tmp_path: Path) -> None:
    cli.ok("registry", "add", "team", registry, "--priority", "100")
    assert listed(cli) == [("bundled", 100), ("team", 100)]
    cli.ok("registry", "priority", "team", "101")
    assert listed(cli) == [("team", 101), ("bundled", 100)]
    cli.ok("registry", "priority", "bundled", "1000")
    assert listed(cli)[0] == ("bundled", 1000)
    assert cli("registry", "priority", "taem", "3").code == 3
    assert cli("registry", "priority", "team", "1001").code == 2


@pytest.mark.parametrize("name", ["bundled", "Team", "../x", "", "none"])
def test_names_that_cannot_be_given(cli: Cli, registry: Path, name: str) -> None:
    assert cli("registry", "add", name, registry).code == 2
    assert listed(cli) == [("bundled", 100)]


def test_a_directory_without_a_registry(cli: Cli, tmp_path: Path) -> None:
    result = cli("registry", "add", "team", tmp_path)
    assert result.code == 3
    assert "no registry at" in result.err


def test_the_same_name_or_address_twice(cli: Cli, registry: Path, tmp_path: Path) -> None:
    cli.ok("registry", "add", "team", registry)
    result = cli("registry", "add", "other", registry)
    assert result.code == 2
    assert "is configured already, as `team`" in result.err
    result = cli("registry", "add", "team", tmp_path / "elsewhere")
    assert result.code == 2
    assert f"`team` is configured already, for {registry}" in result.err
    # the same again changes what is said of it
    cli.ok("registry", "add", "team", registry, "--priority", "7")
    assert listed(cli) == [("bundled", 100), ("team", 7)]


def test_the_bundled_registry_stays(cli: Cli) -> None:
    result = cli("registry", "remove", "bundled")
    assert result.code == 2
    assert "`mbpm registry priority bundled 0`" in result.err


def test_a_name_on_the_command_line(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("registry", "add", "team", registry)
    cli.ok("install", "alpha", "--registry", "team", "--yes")
    result = cli("install", "alpha", "--registry", "taem", "--reinstall", "--yes")
    assert result.code == 3
    assert "no registry at" in result.err


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("format = 1\n[registries.team]\n", "`registries.team.address` is missing"),
        ("format = 1\nregistries = 3\n", "registries"),
        ("not toml at all", "is not TOML"),
        ("\xff", "is not UTF-8"),
        ("format = 9\n", "has format 9"),
        (
            '[registries.a]\naddress = "/r"\n[registries.b]\naddress = "/r"\n',
            "`a` and `b` have the same address",
        ),
        ('[registries.bundled]\naddress = "/r"\n', "the name of the registry that ships with mbpm"),
    ],
)
def test_a_list_edited_wrongly(cli: Cli, text: str, rule: str) -> None:
    cli.home.mkdir()
    (cli.home / "registries.toml").write_bytes(text.encode("latin-1"))
    result = cli("search")
    assert result.code in (1, 2)
    assert "registries.toml" in result.err
    assert rule in result.err


def test_refresh_of_nothing(cli: Cli, registry: Path) -> None:
    assert "no remote registry is configured" in cli.ok("registry", "refresh").err
    cli.ok("registry", "add", "team", registry)
    assert cli.ok("registry", "refresh", "team", "--json").json == {"refreshed": []}
    assert cli("registry", "refresh", "taem").code == 3


def test_a_configured_directory_that_is_gone_hides_no_other(
    cli: Cli, registry: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    cli.ok("registry", "add", "team", registry)
    registry.rename(moved)
    result = cli.ok("search", "medical")
    assert "medical" in result.out
    assert f"no registry at {registry}" in result.err
    assert cli.ok("install", "medical", "-s", "--json").json["plan"]["packs"]


def test_yank_hides_and_undo_shows(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    publish("alpha", "1.1.0")
    assert "yanked" in cli.ok("yank", "alpha@=1.1.0", "--registry", registry).err
    assert "already" in cli.ok("yank", "alpha@=1.1.0", "--registry", registry).err
    plan = cli.ok("install", "alpha", "--registry", registry, "-s", "--json").json["plan"]
    assert plan["packs"][0]["new"] == "1.0.0"
    assert cli.ok("yank", "alpha@=1.1.0", "--registry", registry, "--undo", "--json").json == {
        "pack": "alpha",
        "version": "1.1.0",
        "changed": True,
    }
    plan = cli.ok("install", "alpha", "--registry", registry, "-s", "--json").json["plan"]
    assert plan["packs"][0]["new"] == "1.1.0"


def test_all_versions_yanked_are_not_listed(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("yank", "alpha@=1.0.0", "--registry", registry)
    assert cli.ok("search", "alpha", "--registry", registry, "--json").json["packs"] == []
    assert "1.0.0 (yanked)" in cli.ok("show", "alpha", "--registry", registry).out


def test_deprecate_says_why(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("yank", "alpha", "--registry", registry, "--deprecate", "use omega")
    assert "deprecated use omega" in cli.ok("show", "alpha", "--registry", registry).out
    assert "(deprecated) " in cli.ok("search", "alpha", "--registry", registry).out
    cli.ok("yank", "alpha@=1.0.0", "--registry", registry, "--deprecate", "")
    assert "deprecated" not in cli.ok("show", "alpha", "--registry", registry).out


@pytest.mark.parametrize(
    "arguments",
    [
        ("alpha",),
        ("alpha@1.0.0",),
        ("alpha@=1",),
        ("../x@=1.0.0",),
        ("alpha@=1.0.0", "--undo", "--deprecate", "x"),
        ("alpha", "--deprecate", "two\nlines"),
    ],
)
def test_yank_of_what_is_no_version(
    cli: Cli, registry: Path, publish: Publish, arguments: tuple[str, ...]
) -> None:
    publish("alpha")
    assert cli("yank", *arguments, "--registry", registry).code == 2


def test_yank_of_what_is_not_there(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    assert cli("yank", "alpha@=9.0.0", "--registry", registry).code == 3
    assert cli("yank", "beta@=9.0.0", "--registry", registry).code == 3
    assert cli("yank", "alpha@=1.0.0", "--registry", "https://packs.example").code == 2


def test_publisher_stands_in_the_index(
    cli: Cli, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.packs import pack_folder

    folder = pack_folder(tmp_path / "p", "alpha")
    publish = ("publish", folder, "--registry", registry, "--yes")
    bad = cli(*publish, "--publisher", "a\x1b[2Jb")
    assert bad.code == 2
    monkeypatch.setenv("MBPM_PUBLISHER", "Jane <jane@example.org>")
    document = json.loads(cli.ok(*publish, "--json").out)
    assert document["publisher"] == "Jane <jane@example.org>"
    shown = cli.ok("show", "alpha", "--registry", registry)
    assert "publisher  Jane <jane@example.org>" in shown.out


def test_dry_runs_change_nothing(cli: Cli, registry: Path, publish) -> None:
    publish("alpha")
    assert "would add team" in cli.ok("registry", "add", "team", registry, "--dry-run").err
    assert "team" not in cli.ok("registry", "list").out
    cli.ok("registry", "add", "team", registry, "--priority", "7")
    before = cli.ok("registry", "list", "--json").json
    assert "would have priority 9" in cli.ok("registry", "priority", "team", "9", "-s").err
    assert "would remove team" in cli.ok("registry", "remove", "team", "-s").err
    assert cli.ok("registry", "list", "--json").json == before
    result = cli.ok("yank", "alpha@=1.0.0", "--registry", registry, "-s")
    assert "alpha 1.0.0 would be yanked" in result.err
    assert '"yanked":true' not in (registry / "index" / "al" / "ph" / "alpha").read_text()
