"""`mbpm gc` and `mbpm clean`: what nothing needs leaves the disk, and nothing else does."""

from __future__ import annotations

import errno
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli

Publish = Callable[..., None]


def files(cli: Cli, folder: str = "store") -> set[Path]:
    return {f for f in (cli.home / folder).rglob("*") if f.is_file()}


@pytest.fixture
def upgraded(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """A home where alpha 1.0.0 was upgraded to 2.0.0."""
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    publish("alpha", "2.0.0")
    cli.ok("upgrade", "--registry", registry, "--yes")
    return cli


def test_frees_what_only_earlier_generations_need(upgraded: Cli) -> None:
    before = files(upgraded)
    result = upgraded.ok("gc", "--yes")
    assert "pack       alpha 1.0.0" in result.out
    assert "freed " in result.err
    assert files(upgraded) < before
    upgraded.ok("verify")


def test_dry_run_shows_and_frees_nothing(upgraded: Cli) -> None:
    before = files(upgraded)
    document = upgraded.ok("gc", "--dry-run", "--json").json
    assert sum(w["bytes"] for w in document["found"]) > 0
    assert document["freed_bytes"] == 0
    assert files(upgraded) == before


def test_keep_counts_generations(upgraded: Cli) -> None:
    before = files(upgraded)
    result = upgraded.ok("gc", "--keep", "2", "--yes")
    assert "there is nothing to free" in result.err
    assert files(upgraded) == before
    assert upgraded("gc", "--keep", "0").code == 2


def test_what_it_says_is_what_the_disk_gains(upgraded: Cli) -> None:
    def inodes() -> dict[int, int]:
        return {s.st_ino: s.st_size for s in (f.stat() for f in files(upgraded))}

    before = inodes()
    said = upgraded.ok("gc", "--yes", "--json").json["freed_bytes"]
    assert said == sum(before.values()) - sum(inodes().values())


def test_another_profile_keeps_its_bytes(upgraded: Cli, registry: Path) -> None:
    upgraded.ok("--profile", "work", "install", "alpha@=1.0.0", "--registry", registry, "--yes")
    assert "there is nothing to free" in upgraded.ok("gc", "--yes").err
    upgraded.ok("--profile", "work", "verify")


def test_undo_after_gc_fetches_again(upgraded: Cli) -> None:
    upgraded.ok("gc", "--yes")
    plan = upgraded.ok("undo", "--dry-run", "--json").json["plan"]
    assert sum(p["fetch_bytes"] for p in plan["packs"]) > 0
    upgraded.ok("undo", "--yes")
    assert upgraded.installed() == {"alpha": "1.0.0"}
    upgraded.ok("verify")


def test_asks(upgraded: Cli) -> None:
    assert upgraded("gc").code == 2
    assert upgraded("gc", answer="n\n").code == 1
    assert upgraded("gc", answer="y\n").code == 0


def part(cli: Cli, name: str, *, age: float = 0) -> Path:
    path = cli.home / "store" / "parts" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"some bytes")
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_unfinished_downloads_wait(upgraded: Cli) -> None:
    young = part(upgraded, f"{'a' * 64}.host.0.{'1' * 32}.part")
    old = part(upgraded, f"{'b' * 64}.host.0.{'2' * 32}.part", age=15 * 24 * 3600)
    result = upgraded.ok("gc", "--yes")
    assert young.exists() and not old.exists()
    assert "`mbpm clean` drops it" in result.out
    upgraded.ok("gc", "--partial", "--yes")
    assert not young.exists()


def test_clean_drops_downloads_and_leaves_the_rest(upgraded: Cli) -> None:
    before = files(upgraded)
    young = part(upgraded, f"{'a' * 64}.host.0.{'1' * 32}.part")
    assert "unfinished" in upgraded.ok("clean", "--dry-run").out
    assert young.exists()
    result = upgraded.ok("clean", "--yes")
    assert "freed 10 B" in result.err
    assert files(upgraded) == before
    assert "there is nothing to free" in upgraded.ok("clean").err


def test_marks_of_a_part_that_is_gone(upgraded: Cli) -> None:
    stray = part(upgraded, f"{'a' * 64}.host.0.{'1' * 32}.chunks")
    mine = part(upgraded, f"{'a' * 64}.{platform.node()}.{os.getppid()}.{'2' * 32}.chunks")
    upgraded.ok("gc", "--yes")
    assert not stray.exists()
    assert mine.exists(), "its owner lives, and may be renaming it right now"


def test_damaged_pointer_frees_nothing(upgraded: Cli) -> None:
    before = files(upgraded)
    (upgraded.home / "current").write_text("seven")
    assert upgraded("gc", "--yes").code == 5
    assert files(upgraded) == before


def test_damaged_old_generation_is_no_obstacle(upgraded: Cli) -> None:
    (upgraded.home / "generations" / "1.json").write_text("{")
    upgraded.ok("gc", "--yes")
    upgraded.ok("verify")


def test_leftovers_of_killed_processes_go(upgraded: Cli) -> None:
    folder = upgraded.home / "generations"
    gone = [folder / ".3.json.0123", upgraded.home / ".current.0123", folder / "3.json"]
    foreign = upgraded.home / ".tokens.toml.0123"
    for file in (*gone, foreign):
        file.write_text("half")
    upgraded.ok("gc", "--yes")
    assert not any(file.exists() for file in gone)
    assert foreign.exists(), "whoever writes it needs no lock, and may be at it right now"
    os.utime(foreign, (0, 0))
    upgraded.ok("gc", "--yes")
    assert not foreign.exists()


@pytest.mark.parametrize("command", ["gc", "clean"])
def test_what_a_killed_writer_left_goes_although_nothing_is_waste(cli: Cli, command: str) -> None:
    left = [cli.home / "staging" / "half" / "file", cli.home / "owner.json"]
    for file in (*left, cli.home / "journal.json"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    cli.ok(command, "--dry-run")
    assert all(file.exists() for file in left)
    assert "there is nothing to free" in cli.ok(command).err
    assert [f.name for f in cli.home.rglob("*") if f.is_file()] == ["lock"]


def test_nothing_was_ever_installed(cli: Cli) -> None:
    assert "there is nothing to free" in cli.ok("gc").err
    assert not cli.home.exists()


def test_works_on_a_full_disk(upgraded: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("mbpm.lock.write_atomic", full)
    upgraded.ok("gc", "--yes")
    assert "nothing to free" in upgraded.ok("gc").err


def test_clean_of_downloads_only(upgraded: Cli) -> None:
    copy = upgraded.home / "cache" / "registries" / "team-0123" / "index.sqlite"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"a copy of an index")
    young = part(upgraded, f"{'a' * 64}.host.0.{'1' * 32}.part")
    upgraded.ok("clean", "--partial", "--yes")
    assert copy.exists() and not young.exists()
    upgraded.ok("clean", "--yes")
    assert not copy.exists()
