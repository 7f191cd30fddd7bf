"""Killed at any moment: the state is the old one or the new one, and trying again works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import faults
from tests.support.cli import Cli

Publish = Callable[..., None]

JOURNAL = "os.rename /journal.json"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def every_moment(cli: Cli, start: Path, arguments: list[str], old: dict, new: dict) -> None:
    """Kill a command at every other step from its journal on, from the same starting home each
    time; what comes before is for `make torture`."""
    outcomes = set()
    for moment in range(1, 500, 2):
        shutil.rmtree(cli.home, ignore_errors=True)
        if start.exists():
            shutil.copytree(start, cli.home)
        ended = faults.command(arguments, home=cli.home, kill=moment, since=JOURNAL)
        found = cli.installed()
        assert found in (old, new), f"moment {moment}: {ended.last}"
        outcomes.add(len(found))
        cli.ok("verify")
        # the next writer puts everything right, whatever it came for
        again = faults.command(arguments, home=cli.home)
        assert again.code == 0, again.err
        assert cli.installed() == new
        cli.ok("verify")
        assert not (cli.home / "journal.json").exists()
        assert not list((cli.home / "staging").glob("*"))
        if not ended.killed:
            assert moment > 10
            assert len(outcomes) == 2, "both outcomes were seen"
            return
    pytest.fail("the command never ended")


def test_kill_during_first_install(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    arguments = ["install", "alpha", "--registry", str(registry), "--yes"]
    every_moment(cli, cli.home.with_name("nothing"), arguments, {}, {"alpha": "1.0.0"})


def test_kill_during_upgrade(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    publish("alpha", "2.0.0")
    publish("beta", requires={"alpha": "2"})
    start = cli.home.with_name("start")
    cli.home.rename(start)
    every_moment(
        cli,
        start,
        ["install", "beta", "--registry", str(registry), "--yes"],
        {"alpha": "1.0.0"},
        {"alpha": "2.0.0", "beta": "1.0.0"},
    )


def test_kill_during_removal(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    publish("beta")
    cli.ok("install", "alpha", "beta", "--registry", registry, "--yes")
    outcomes = set()
    start = cli.home.with_name("start")
    cli.home.rename(start)
    for moment in range(1, 200):
        shutil.rmtree(cli.home, ignore_errors=True)
        shutil.copytree(start, cli.home)
        ended = faults.command(["remove", "alpha", "--yes"], home=cli.home, kill=moment)
        outcomes.add(len(cli.installed()))
        cli.ok("verify")
        if "alpha" in cli.installed():
            cli.ok("remove", "alpha", "--yes")
        cli.ok("remove", "beta", "--yes")
        cli.ok("base", "remove", "tiny", "--yes")
        cli.ok("gc", "--yes")
        left = [f for f in (cli.home / "store").rglob("*") if f.is_file()]
        assert left == [], f"moment {moment}: nothing is left on the disk"
        if not ended.killed:
            break
    assert outcomes == {1, 2}


def test_random_kill_of_a_real_process(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    command = [sys.executable, "-m", "mbpm", "--home", str(cli.home)]
    command += ["install", "alpha", "--registry", str(registry), "--yes", "--quiet"]
    for delay in (0.3, 0.5, 0.7):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.kill()
        process.wait()
        assert cli.installed() in ({}, {"alpha": "1.0.0"})
        cli.ok("verify")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    cli.ok("verify")


def test_damaged_journal_does_not_stop_anything(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    (cli.home / "journal.json").write_text("{")
    cli.ok("remove", "alpha", "--yes")
    assert not (cli.home / "journal.json").exists()


def test_damaged_pointer_is_named(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    pointer = cli.home / "current"
    for text in ("", "seven", "7"):
        pointer.write_text(text)
        result = cli("list")
        assert result.code == 5
        assert str(cli.home) in result.err


@pytest.mark.parametrize("text", ["not json", "[]", '{"to": 1}'])
def test_journal_that_somebody_edited(
    cli: Cli, registry: Path, publish: Publish, text: str
) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    (cli.home / "journal.json").write_text(text)
    cli.ok("remove", "alpha", "--yes")
    assert cli.installed() == {}
    assert not (cli.home / "journal.json").exists()
