"""`mbpm remove`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli

Publish = Callable[..., None]


@pytest.fixture
def two(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """A home with `alpha`, `beta` which requires it, and their base."""
    publish("alpha")
    publish("beta", requires={"alpha": "1"})
    cli.ok("install", "beta", "--registry", registry, "--yes")
    return cli


def test_gc_then_frees_what_only_this_pack_needs(two: Cli) -> None:
    blobs = two.home / "store" / "blobs"
    before = {f for f in blobs.rglob("*") if f.is_file()}
    result = two.ok("remove", "beta", "--yes")
    assert "remove     beta 1.0.0" in result.out
    assert "disk       frees " in result.out
    assert two.installed() == {"alpha": "1.0.0"}
    two.ok("gc", "--yes")
    assert {f for f in blobs.rglob("*") if f.is_file()} < before
    two.ok("verify")


def test_shared_blobs_stay(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha", files={"LICENSE": b"the same in both"})
    publish("beta", files={"LICENSE": b"the same in both"})
    cli.ok("install", "alpha", "beta", "--registry", registry, "--yes")
    cli.ok("remove", "alpha", "--yes")
    cli.ok("verify")


def test_what_another_pack_requires_stays(two: Cli) -> None:
    result = two("remove", "alpha", "--yes")
    assert result.code == 4
    assert "beta 1.0.0 requires alpha" in result.err
    assert "`mbpm remove alpha beta`" in result.err
    assert two.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}
    two.ok("remove", "alpha", "beta", "--yes")
    assert two.installed() == {}


def test_unknown_name_suggests_one(two: Cli) -> None:
    result = two("remove", "alhpa", "--yes")
    assert result.code == 3
    assert "did you mean `alpha`?" in result.err


def test_no_terminal(two: Cli) -> None:
    result = two("remove", "beta")
    assert result.code == 2
    assert "`--yes`" in result.err
    assert "beta" in two.installed()


def test_dry_run_and_json(two: Cli) -> None:
    document = two.ok("remove", "beta", "--dry-run", "--json").json
    assert document["changed"] is False
    assert document["plan"]["packs"][0]["disk_bytes"] < 0
    assert "beta" in two.installed()
    document = two.ok("remove", "beta", "--yes", "--json").json
    assert document["changed"] is True
    assert document["generation"] == 2


def test_comes_back(two: Cli, registry: Path) -> None:
    two.ok("remove", "beta", "--yes")
    two.ok("install", "beta", "--registry", registry, "--yes")
    two.ok("verify")


def test_what_stands_in_for_a_required_name_stays(
    cli: Cli, registry: Path, publish: Publish
) -> None:
    publish("words", provides=["vocabulary"])
    publish("other", provides=["vocabulary"])
    publish("alpha", requires={"vocabulary": "*"})
    cli.ok("install", "alpha", "words", "--registry", registry, "--yes")
    result = cli("remove", "words", "--yes")
    assert result.code == 4
    assert "alpha 1.0.0 requires vocabulary, which words provides" in result.err
    cli.ok("install", "other", "--registry", registry, "--yes")
    cli.ok("remove", "words", "--yes")
    assert cli.installed().keys() == {"alpha", "other"}


def test_what_another_profile_has_is_not_freed(two: Cli, registry: Path) -> None:
    two.ok("--profile", "other", "install", "alpha", "--registry", registry, "--yes")
    plan = two.ok("remove", "beta", "alpha", "-s", "--json").json["plan"]
    freed = {p["name"]: -p["disk_bytes"] for p in plan["packs"]}
    assert freed["alpha"] == 0
    assert freed["beta"] > 0
