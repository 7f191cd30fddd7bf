"""`mbpm profile`, and that profiles share a store and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli

Publish = Callable[..., None]


@pytest.fixture
def two(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """A home whose default profile has alpha, and its profile `work` alpha and beta."""
    for name in ("alpha", "beta"):
        publish(name)
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    cli.ok("--profile", "work", "install", "alpha", "beta", "--registry", registry, "--yes")
    return cli


def names(cli: Cli) -> dict[str, list[str]]:
    return {p["name"]: p["packs"] for p in cli.ok("profile", "list", "--json").json["profiles"]}


def test_list(two: Cli) -> None:
    lines = two.ok("profile", "list", "--profile", "work").out.splitlines()
    assert lines[0].split() == ["PROFILE", "PACKS", "BASES", "SIZE", "CHANGED"]
    assert lines[1].split()[:3] == ["default", "1", "1"]
    assert lines[2].split()[:4] == ["*", "work", "2", "1"]


def test_an_empty_home(cli: Cli) -> None:
    (only,) = cli.ok("profile", "list", "--json").json["profiles"]
    assert (only["name"], only["active"], only["packs"], only["bytes"]) == ("default", True, [], 0)
    assert not cli.home.exists()


def test_remove_leaves_the_others(two: Cli) -> None:
    result = two.ok("profile", "remove", "work", "--yes")
    assert result.out == "remove     profile work (alpha, beta, base tiny)\n"
    assert names(two) == {"default": ["alpha"]}
    assert two.installed() == {"alpha": "1.0.0"}
    two.ok("gc", "--yes")
    two.ok("verify")
    assert two.ok("--profile", "work", "list", "--json").json["packs"] == []


def test_dry_run_and_the_answer_no(two: Cli) -> None:
    assert two.ok("profile", "remove", "work", "-s", "--json").json == {
        "removed": ["work"],
        "changed": False,
    }
    assert two("profile", "remove", "work", answer="n\n").code == 1
    assert names(two) == {"default": ["alpha"], "work": ["alpha", "beta"]}


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("default", 2, "the profile `default` cannot be removed"),
        ("wrok", 3, "did you mean `work`?"),
        ("../store", 3, "there is no profile `../store`"),
    ],
)
def test_what_is_not_removed(two: Cli, name: str, code: int, said: str) -> None:
    result = two("profile", "remove", "work", name, "--yes")
    assert result.code == code
    assert said in result.err
    assert names(two) == {"default": ["alpha"], "work": ["alpha", "beta"]}


def test_a_damaged_profile_is_listed_and_can_be_removed(two: Cli) -> None:
    (two.home / "profiles" / "work" / "current").write_text("x")
    assert "work     damaged" in two.ok("profile", "list").out
    two.ok("profile", "remove", "work", "--yes")
    assert names(two) == {"default": ["alpha"]}


def test_a_name_that_is_none(cli: Cli) -> None:
    result = cli("--profile", "../x", "list")
    assert result.code == 2
    assert "profile '../x' is not a valid name" in result.err
