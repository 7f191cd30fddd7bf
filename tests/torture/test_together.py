"""Several processes at once: every change as if it had been alone, and readers that never wait."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from mbpm.home import Home
from specs.errors import NotFoundError
from specs.generation import Generation
from tests.support import faults
from tests.support.cli import Cli
from tests.torture import disk
from tests.torture.model import Content, Model
from tests.torture.runner import (
    PROFILES,
    READERS,
    arguments,
    described,
    random_words,
    recorded,
)
from tests.torture.world import World

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

WRITERS = 3
PATIENT = {"MBPM_LOCK_TIMEOUT": "60"}


def crowd(world: World, home: Path, seed: str, commands: int) -> int:
    """Keep several commands running until so many ended; read all the while.

    Returns:
        How many generations they made.
    """
    rng = random.Random(seed)
    running: list[tuple[str, list[str], faults.Child]] = []
    made: dict[tuple[str, int], list[str]] = {}
    started = 0
    while started < commands or running:
        while started < commands and len(running) < WRITERS:
            profile = rng.choice(PROFILES)
            words = random_words(rng, Home(home, profile).current().number, world)
            typed = [*arguments(world, profile, words), "--json"]
            running.append((profile, words, faults.start(typed, home=home, environ=PATIENT)))
            started += 1
        look(rng, home)
        for entry in list(running):
            profile, words, child = entry
            if (ended := child.poll()) is not None:
                running.remove(entry)
                assert ended.code in (0, 3, 4), f"{profile}: {words}: {ended}"
                document = ended.json
                if document.get("changed") and document["generation"] and commits(document["plan"]):
                    made.setdefault((profile, document["generation"]), words)
    check_history(world, home, made)
    return len(made)


def commits(plan: dict[str, Any]) -> bool:
    """Whether a plan makes a generation: to free what earlier ones have does not."""
    return {step["action"] for step in (*plan["packs"], *plan["bases"])} != {"purge"}


def look(rng: random.Random, home: Path) -> None:
    """What a reader sees is a generation that counts or counted, and whole while it counts."""
    profile = rng.choice(PROFILES)
    cli = Cli(home)
    listed = cli.ok("--profile", profile, "list", "--json").json
    if listed["generation"]:
        kept = Home(home, profile).generation(listed["generation"]).model_dump(mode="json")
        assert recorded(listed) == recorded(kept)
    cli.ok("--profile", profile, "verify")
    cli.ok("--profile", profile, *rng.choice(READERS))


def check_history(world: World, home: Path, made: dict[tuple[str, int], list[str]]) -> None:
    """Every generation is what its command makes of the one before."""
    model = Model()
    for profile in dict.fromkeys(PROFILES):
        for number in range(1, Home(home, profile).current().number + 1):
            generation = Home(home, profile).generation(number)
            words = made[profile, number]
            now = model.profile(profile).now
            if words == ["upgrade"]:
                # what others installed after the plan was shown is none of its business
                words = ["upgrade", *upgraded(now, generation)]
            model, code = model.after(profile, words)
            assert code == 0 and model.profile(profile).number == number, f"{number}: {words}"
            found = recorded(generation.model_dump(mode="json"))
            expected = described(model.profile(profile).now, world)
            assert found == expected, f"{number}: {words} made {found}\nnot {expected}\nof {now}"
        with pytest.raises(NotFoundError):
            Home(home, profile).generation(model.profile(profile).number + 1)
    for words in (["gc", "--yes"], ["clean", "--yes"]):
        assert faults.command(words, home=home).code == 0
    disk.check_clean(home, model, world)


def upgraded(before: Content, after: Generation) -> list[str]:
    """The packs whose version is another."""
    return [p.name for p in after.packs if before.packs[p.name].version != p.version]


def test_a_few_commands_at_once(things: World, place: Path) -> None:
    assert crowd(things, place / "home", "suite", 25)


@pytest.mark.torture
@pytest.mark.parametrize("shard", range(4))
def test_many_commands_at_once(things: World, place: Path, seed: str, shard: int) -> None:
    assert crowd(things, place / "home", f"{seed}/{shard}", 100)


def test_writer_that_stands_still(things: World, place: Path) -> None:
    """Whoever waits is told for whom and gives up in time; whoever reads does not notice."""
    home = place / "home"
    registry = ["--registry", things.registry, "--yes"]
    assert faults.command(["install", "alpha", *registry], home=home).code == 0
    child = faults.start(["install", "gamma", *registry], home=home, at=_stop_at_journal)
    try:
        os.waitpid(child.pid, os.WUNTRACED)
        Cli(home).ok("verify")
        assert Cli(home).installed() == {"alpha": "2.0.0"}
        impatient = {"MBPM_LOCK_TIMEOUT": "0.1"}
        began = time.monotonic()
        for words in (["remove", "alpha", "--yes"], ["gc", "--yes"], ["hold", "alpha"]):
            ended = faults.command(words, home=home, environ=impatient)
            assert ended.code == 1
            assert f"is being changed by process {child.pid} on " in ended.err
        assert time.monotonic() - began < faults.DEADLINE_SECONDS / 2
        waiting = faults.start(["remove", "alpha", "--yes"], home=home, environ=PATIENT)
    finally:
        os.kill(child.pid, signal.SIGCONT)
    assert child.wait().code == 0
    assert waiting.wait().code == 0
    assert Cli(home).installed() == {"gamma": "2.0.0"}
    Cli(home).ok("verify")


def test_dead_writer_keeps_nobody_waiting(things: World, place: Path) -> None:
    home = place / "home"
    registry = ["--registry", things.registry, "--yes"]
    killed = faults.command(["install", "alpha", *registry], home=home, kill=2, since="/current")
    assert killed.killed and (home / "owner.json").exists()
    impatient = {"MBPM_LOCK_TIMEOUT": "0"}
    assert faults.command(["remove", "alpha", "--yes"], home=home, environ=impatient).code == 0


def _stop_at_journal(_number: int, kind: str, name: str) -> None:
    if kind == "os.rename" and name.endswith("/journal.json"):
        os.kill(os.getpid(), signal.SIGSTOP)
