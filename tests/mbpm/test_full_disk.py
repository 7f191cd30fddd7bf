"""A disk that is full, at every write and for real: exit code 8, nothing lost, and a way out."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbpm import files
from mbpm.fetch import obtain
from tests.support import faults
from tests.support.cli import Cli

Publish = Callable[..., None]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def upgradable(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """A home with alpha 1.0.0, whose 2.0.0 needs beta."""
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    publish("beta")
    publish("alpha", "2.0.0", requires={"beta": "1"})
    return cli


def at_moments(
    cli: Cli, words: list[str], old: dict[str, str], new: dict[str, str], moments: list[int]
) -> None:
    """Run a command with a disk that is full from some step on, each time from the same home."""
    start = cli.home.with_name("start")
    shutil.copytree(cli.home, start)
    refused = 0
    for moment in moments:
        shutil.rmtree(cli.home)
        shutil.copytree(start, cli.home)
        ended = faults.command(words, home=cli.home, at=faults.full_disk(moment))
        assert ended.code in (0, 8), f"step {moment}: {ended}"
        found = cli.installed()
        if ended.code == 0:
            assert found == new
        else:
            refused += 1
            assert "the disk is full" in ended.err
            assert "what was installed before is unchanged" in ended.err
            assert found == old, f"step {moment}"
        cli.ok("verify")
        again = faults.command(words, home=cli.home)
        assert again.code == 0 and cli.installed() == new, f"step {moment}: {again}"
        assert not (cli.home / "staging").exists() and not (cli.home / "journal.json").exists()
    assert refused


def test_full_at_any_step_of_an_upgrade(upgradable: Cli) -> None:
    words = ["upgrade", "--yes"]
    steps = faults.command([*words, "--dry-run"], home=upgradable.home).steps
    moments = sorted(random.Random(1).sample(range(steps + 1, steps + 160), 8))
    new = {"alpha": "2.0.0", "beta": "1.0.0"}
    at_moments(upgradable, words, {"alpha": "1.0.0"}, new, moments)


@pytest.mark.torture
def test_full_at_every_step_of_an_upgrade(upgradable: Cli) -> None:
    new = {"alpha": "2.0.0", "beta": "1.0.0"}
    at_moments(upgradable, ["upgrade", "--yes"], {"alpha": "1.0.0"}, new, list(range(1, 220)))


@pytest.mark.parametrize(
    "words", [["gc", "--yes"], ["clean", "--yes"], ["gc", "--partial", "--yes"]]
)
def test_freeing_needs_no_space(upgradable: Cli, words: list[str]) -> None:
    upgradable.ok("upgrade", "--yes")
    parts = upgradable.home / "store" / "parts"
    (parts / f"{'a' * 64}.host.0.{'1' * 32}.part").write_bytes(b"some bytes")
    killed = faults.command(
        ["remove", "alpha", "--yes"], home=upgradable.home, kill=1, since="/current"
    )
    assert killed.killed
    ended = faults.command(words, home=upgradable.home, at=faults.full_disk(1))
    assert ended.code == 0, ended.err
    assert "freed " in ended.err
    assert faults.command(words, home=upgradable.home).err.count("nothing to free") == 1
    assert upgradable.installed() == {"alpha": "2.0.0", "beta": "1.0.0"}
    upgradable.ok("verify")


def test_full_right_after_a_change_began_to_count(upgradable: Cli) -> None:
    ended = faults.command(["upgrade", "--yes"], home=upgradable.home, at=after_the_flip())
    assert ended.code == 0, ended.err
    assert "origins.json: no space left on device; the next change writes it" in ended.err
    assert upgradable.installed() == {"alpha": "2.0.0", "beta": "1.0.0"}
    upgradable.ok("hold", "alpha")
    assert "beta" in (upgradable.home / "origins.json").read_text()
    assert not (upgradable.home / "journal.json").exists()


def after_the_flip() -> faults.AtStep:
    """No room for anything once `current` was replaced."""
    full, counts = faults.full_disk(1), False

    def at(number: int, kind: str, name: str) -> None:
        nonlocal counts
        if counts:
            full(number, kind, name)
        counts = counts or name.endswith("/current")

    return at


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        pytest.skip("there is no `mount`")
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_disk_that_is_really_full(
    small_disk: Path, registry: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SPARE_BYTES", 0)
    noise = random.Random(1)
    for version in ("1.0.0", "2.0.0"):
        publish("alpha", version, files={"LICENSE": noise.randbytes(2_000_000)})
    cli, given = Cli(small_disk / "home"), ("--registry", registry, "--yes")
    cli.ok("install", "alpha@=1.0.0", *given)
    result = cli("upgrade", *given)
    assert result.code == 8
    assert "are free" in result.err and "`--home DIR`" in result.err
    # a check that comes too early, while somebody else fills the disk
    monkeypatch.setattr(obtain, "check_space", lambda *_: None)
    result = cli("upgrade", *given)
    assert result.code == 8
    assert cli.installed() == {"alpha": "1.0.0"}
    cli.ok("verify")
    fill(small_disk)
    for words in (["hold", "alpha"], ["remove", "alpha", "--yes"], ["upgrade", *given]):
        result = cli(*words)
        assert result.code == 8, result
        assert "the disk is full" in result.err
    assert cli.installed() == {"alpha": "1.0.0"}
    cli.ok("verify")
    cli.ok("clean", "--yes")
    cli.ok("remove", "alpha", "--yes")
    cli.ok("gc", "--yes")
    cli.ok("install", "alpha", *given)
    assert cli.installed() == {"alpha": "2.0.0"}


def fill(disk: Path) -> None:
    """Leave no byte."""
    with (disk / "filler").open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))
