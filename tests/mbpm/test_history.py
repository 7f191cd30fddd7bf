"""`mbpm history`, `undo`, `redo` and `rollback`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbpm.history import position
from mbpm.home import Home
from mbpm.state import State
from specs.generation import Generation
from tests.support.cli import Cli

Publish = Callable[..., None]


@pytest.fixture
def changed(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """Generation 1: alpha 1; 2: beta too; 3: alpha 2."""
    publish("alpha")
    publish("beta")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    cli.ok("install", "beta", "--registry", registry, "--yes")
    publish("alpha", "2.0.0")
    cli.ok("upgrade", "--yes")
    return cli


def test_history_newest_first(changed: Cli) -> None:
    rows = changed.ok("history", "--json").json["generations"]
    assert [r["number"] for r in rows] == [3, 2, 1]
    assert [r["current"] for r in rows] == [True, False, False]
    words = [[c["words"] for c in r["changes"]] for r in rows]
    assert words[0] == ["alpha 1.0.0 -> 2.0.0"]
    assert words[1] == ["+beta 1.0.0"]
    assert "+alpha 1.0.0" in words[2]
    text = changed.ok("history", "-n", "1").out
    assert "alpha 1.0.0 -> 2.0.0" in text and "upgrade --yes" in text
    assert "+beta" not in text


def test_one_generation_in_full(changed: Cli) -> None:
    text = changed.ok("history", "2").out
    assert "change   +beta 1.0.0" in text
    assert "pack     alpha 1.0.0 from " in text
    result = changed("history", "9")
    assert result.code == 3
    assert "`mbpm history` lists" in result.err


def test_undo_goes_further_back_and_redo_forward(changed: Cli) -> None:
    changed.ok("undo", "--yes")
    assert changed.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}
    changed.ok("undo", "--yes")
    assert changed.installed() == {"alpha": "1.0.0"}
    changed.ok("redo", "--yes")
    assert changed.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}
    changed.ok("redo", "--yes")
    assert changed.installed() == {"alpha": "2.0.0", "beta": "1.0.0"}
    result = changed("redo", "--yes")
    assert result.code == 3
    for _ in range(3):
        changed.ok("undo", "--yes")
    assert changed.installed() == {}
    result = changed("undo", "--yes")
    assert result.code == 3
    assert "there is no change to take back" in result.err
    changed.ok("verify")


def test_undo_needs_no_registry(changed: Cli, registry: Path) -> None:
    registry.rename(registry.with_name("gone"))
    plan = changed.ok("undo", "--dry-run", "--json").json["plan"]
    assert sum(p["fetch_bytes"] for p in plan["packs"]) == 0
    changed.ok("undo", "--yes", "--offline")
    changed.ok("verify")


def test_another_change_ends_redo(changed: Cli, registry: Path) -> None:
    changed.ok("undo", "--yes")
    changed.ok("remove", "beta", "--yes")
    assert changed("redo", "--yes").code == 3
    changed.ok("undo", "--yes")
    assert changed.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}


def test_marks_are_restored_too(changed: Cli) -> None:
    changed.ok("hold", "alpha")
    changed.ok("undo", "--yes")
    assert not any(p["held"] for p in changed.ok("list", "--json").json["packs"])
    changed.ok("redo", "--yes")
    assert any(p["held"] for p in changed.ok("list", "--json").json["packs"])


def test_rollback_and_back(changed: Cli) -> None:
    changed.ok("rollback", "1", "--yes")
    assert changed.installed() == {"alpha": "1.0.0"}
    rows = changed.ok("history", "--json").json["generations"]
    assert rows[0]["cause"] == "rollback" and rows[0]["restores"] == 1
    changed.ok("undo", "--yes")
    assert changed.installed() == {"alpha": "2.0.0", "beta": "1.0.0"}
    changed.ok("rollback", "0", "--yes")
    assert changed.installed() == {} and changed.bases() == []


def test_rollback_to_what_is_there(changed: Cli) -> None:
    result = changed.ok("rollback", "3")
    assert "generation 3 holds what is installed already" in result.err
    assert changed("rollback", "44", "--yes").code == 3


def test_rollback_to_what_nobody_has_any_more(changed: Cli, registry: Path) -> None:
    changed.ok("gc", "--yes")
    registry.rename(registry.with_name("gone"))
    result = changed("rollback", "1", "--yes")
    assert result.code == 4
    assert "cannot be had" in result.err
    assert changed.installed() == {"alpha": "2.0.0", "beta": "1.0.0"}


def test_empty_history(cli: Cli) -> None:
    assert "nothing was ever changed" in cli.ok("history").err
    assert cli("undo").code == 3


@given(st.lists(st.sampled_from(["change", "undo", "redo", "rollback"]), max_size=40))
def test_undo_and_redo_are_a_walk_along_the_changes(causes: list[str]) -> None:
    """Against a model that keeps contents instead of numbers."""
    contents, past, future = {0: "empty"}, ["empty"], list[str]()
    generations: list[Generation] = []
    number = 0
    for cause in causes:
        found = position(generations)
        if cause == "undo":
            if found.undo is None:
                assert len(past) == 1
                continue
            future.append(past.pop())
            assert contents[found.undo] == past[-1]
            restores: int | None = found.undo
        elif cause == "redo":
            if found.redo is None:
                assert not future
                continue
            past.append(future.pop())
            assert contents[found.redo] == past[-1]
            restores = found.redo
        else:
            past.append(f"content {number + 1}")
            future.clear()
            restores = None
        number += 1
        contents[number] = past[-1]
        generations.append(
            Generation(
                number=number,
                created="",
                command="",
                cause=cause,
                restores=restores,  # type: ignore[arg-type]
            )
        )


def test_command_can_be_typed_again(cli: Cli, publish: Publish, registry: Path) -> None:
    publish("alpha")
    cli.ok("install", "alpha@>=1, <2", "--registry", registry, "--yes")
    (row,) = cli.ok("history", "--json").json["generations"]
    words = shlex.split(row["command"])
    assert words[words.index("install") + 1] == "alpha@>=1, <2"


def test_command_that_is_no_text_is_recorded_escaped() -> None:
    state = State.from_environment(["install", "x\udcff"], {})
    assert state.command_line == "mbpm install 'x\\udcff'"


def test_generation_that_never_counted_is_none(changed: Cli) -> None:
    home = Home(changed.home)
    left = home.current().model_copy(update={"number": 4, "packs": ()})
    home.generation_path(4).write_bytes(left.canonical())
    for words in (["rollback", "4", "--yes"], ["history", "4"]):
        result = changed(*words)
        assert result.code == 3
        assert "there is no generation 4" in result.err
    assert changed.installed() == {"alpha": "2.0.0", "beta": "1.0.0"}


def test_rollback_to_a_base_that_nothing_installed_tells_of(changed: Cli) -> None:
    changed.ok("rollback", "0", "--yes")
    changed.ok("gc", "--yes")
    changed.ok("rollback", "1", "--yes")
    assert changed.bases() == ["tiny"]
    changed.ok("verify")
