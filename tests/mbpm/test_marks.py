"""Marks of installed packs: hold, pin, auto and manual; and what autoremove makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli

Publish = Callable[..., None]


@pytest.fixture
def chain(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """`top` was asked for; it requires `middle`, which recommends `extra`."""
    publish("extra")
    publish("middle", recommends={"extra": "1"})
    publish("top", requires={"middle": "1"})
    cli.ok("install", "top", "--registry", registry, "--yes")
    assert cli.installed().keys() == {"top", "middle", "extra"}
    return cli


def marks(cli: Cli, mark: str) -> set[str]:
    return {p["name"] for p in cli.ok("list", "--json").json["packs"] if p[mark]}


def test_what_came_along_is_automatic(chain: Cli) -> None:
    assert marks(chain, "auto") == {"middle", "extra"}


def test_autoremove_keeps_what_is_needed(chain: Cli) -> None:
    assert "everything installed is wanted or needed" in chain.ok("autoremove").err


def test_autoremove_follows_the_whole_chain_and_the_base(chain: Cli) -> None:
    result = chain.ok("remove", "top", "--yes")
    assert "nothing needs extra, middle, base tiny any more" in result.err
    assert "`mbpm autoremove`" in result.err
    result = chain.ok("autoremove", "--yes")
    assert "remove     extra 1.0.0 (nothing needs it any more)" in result.out
    assert chain.installed() == {}
    assert chain.bases() == []


def test_remove_with_autoremove(chain: Cli) -> None:
    chain.ok("remove", "top", "--autoremove", "--yes")
    assert chain.installed() == {}


def test_manual_keeps_a_pack(chain: Cli) -> None:
    chain.ok("mark", "manual", "middle")
    chain.ok("remove", "top", "--yes")
    chain.ok("autoremove", "--yes")
    assert chain.installed().keys() == {"middle", "extra"}


def test_asking_for_a_pack_by_name_makes_it_wanted(chain: Cli, registry: Path) -> None:
    result = chain.ok("install", "middle", "--registry", registry)
    assert "middle 1.0.0: wanted itself" in result.err
    assert marks(chain, "auto") == {"extra"}


def test_mark_auto_gives_it_up(chain: Cli) -> None:
    chain.ok("mark", "auto", "top")
    chain.ok("autoremove", "--yes")
    assert chain.installed() == {}


def test_unknown_mark(chain: Cli) -> None:
    result = chain("mark", "sticky", "top")
    assert result.code == 2
    assert "`mbpm mark manual NAME`" in result.err


def test_marks_of_several_or_none(chain: Cli) -> None:
    assert chain("hold", "top", "nothere").code == 3
    assert marks(chain, "held") == set()
    chain.ok("hold", "top", "extra")
    assert marks(chain, "held") == {"top", "extra"}
    assert "top is held" in chain.ok("hold", "top").err


def test_marks_say_dry_run(chain: Cli) -> None:
    document = chain.ok("hold", "top", "--dry-run", "--json").json
    assert document["plan"]["packs"][0]["action"] == "mark"
    assert marks(chain, "held") == set()


@pytest.mark.parametrize("target", ["top", "top@", "top@x", "@1"])
def test_malformed_pin(chain: Cli, target: str) -> None:
    result = chain("pin", target)
    assert result.code == 2
    assert "hint:" in result.err


def test_held_stands_against_an_explicit_version(
    chain: Cli, registry: Path, publish: Publish
) -> None:
    publish("top", "1.1.0", requires={"middle": "1"})
    chain.ok("hold", "top")
    result = chain("install", "top@1.1", "--registry", registry, "--yes")
    assert result.code == 4
    assert "`mbpm unhold top`" in result.err
    assert chain.installed()["top"] == "1.0.0"


def test_no_recommends(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("extra")
    publish("top", recommends={"extra": "1"})
    cli.ok("install", "top", "--registry", registry, "--yes", "--no-recommends")
    assert cli.installed() == {"top": "1.0.0"}


def test_recommended_and_impossible_is_left_out(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("top", recommends={"nothere": "1"})
    result = cli.ok("install", "top", "--registry", registry, "--yes")
    assert "left out   nothere (recommended; " in result.out
    assert cli.installed() == {"top": "1.0.0"}


def test_dry_run_names_the_marks(chain: Cli) -> None:
    result = chain.ok("hold", "top", "--dry-run")
    assert result.out == "mark       top 1.0.0 (held)\n"
    assert marks(chain, "held") == set()


def test_undo_says_which_marks_change(chain: Cli) -> None:
    chain.ok("pin", "top@1")
    assert "mark       top 1.0.0 (no longer pinned)" in chain.ok("undo", "--dry-run").out
    assert "top 1.0.0: no longer pinned" in chain.ok("undo").err


def test_base_that_is_asked_for_stays(chain: Cli, registry: Path) -> None:
    result = chain.ok("base", "install", "tiny", "--registry", registry)
    assert "base tiny: wanted itself" in result.err
    assert "base tiny: wanted itself" in chain.ok("history").out
    chain.ok("remove", "top", "--yes")
    chain.ok("autoremove", "--yes")
    assert chain.bases() == ["tiny"]
    chain.ok("undo", "--yes")
    chain.ok("undo", "--yes")
    result = chain.ok("undo")
    assert "base tiny: there for others only" in result.err
