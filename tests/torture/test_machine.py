"""Any commands in any order, against the model of what each of them does."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mbpm.home import Home
from tests.support.cli import Cli
from tests.torture import disk
from tests.torture.model import Content, Model
from tests.torture.runner import arguments, configure, described, recorded
from tests.torture.world import BIG, FOLDERS, VERSIONS, World, world

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the server needs fork")

PROFILES = ("default", "work")
PACKS = (*VERSIONS, "omega")
profiles = st.sampled_from(PROFILES)
packs = st.sampled_from(PACKS)


class Commands(RuleBasedStateMachine):
    """A home on which commands are typed."""

    def __init__(self, things: World, folder: Path) -> None:
        super().__init__()
        self.world = things
        self.cli = Cli(Path(tempfile.mkdtemp(dir=folder)) / "home")
        configure(self.cli.home, things)
        self.model = Model()

    def type(self, profile: str, *words: str) -> None:
        """Show what a command would do, do it, and compare both with the model."""
        before = self.model.profile(profile).now
        after, code = self.model.after(profile, words)
        typed = arguments(self.world, profile, words)
        if words[0] not in ("gc", "clean"):
            self.shown(typed, code, before, after.profile(profile).now)
        result = self.cli(*typed)
        assert result.code == code, f"{words}: {result}"
        self.model = after

    def shown(self, typed: list[str], code: int, before: Content, after: Content) -> None:
        """A dry run ends as the command will, and tells the very versions."""
        dry = self.cli(*typed, "--dry-run", "--json")
        assert dry.code == code, f"{typed}: {dry}"
        if code:
            return
        told = {p["name"]: p["new"] for p in dry.json["plan"]["packs"]}
        different = {
            name: after.packs[name].version if name in after.packs else None
            for name in before.packs.keys() | after.packs.keys()
            if before.packs.get(name) != after.packs.get(name)
        }
        assert told == different, f"{typed}: {dry}"

    @rule(
        profile=profiles,
        name=st.sampled_from(["alpha", "beta", BIG]),
        exact=st.booleans(),
        data=st.data(),
    )
    def install(self, profile: str, name: str, exact: bool, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(VERSIONS[name]))
        self.type(profile, "install", f"{name}@={version}" if exact else name)

    @rule(profile=profiles, version=st.sampled_from(VERSIONS["left"]))
    def install_pair(self, profile: str, version: str) -> None:
        self.type(profile, "install", f"left@={version}")

    @rule(profile=profiles, version=st.sampled_from(FOLDERS))
    def install_folder(self, profile: str, version: str) -> None:
        self.type(profile, "install", str(self.world.folders[version]))

    @rule(profile=profiles, name=packs, also=st.booleans())
    def remove(self, profile: str, name: str, also: bool) -> None:
        self.type(profile, "remove", name, *(["--autoremove"] if also else []))

    @rule(profile=profiles, names=st.lists(packs, min_size=1, max_size=3, unique=True))
    def purge(self, profile: str, names: list[str]) -> None:
        self.type(profile, "purge", *names)

    @rule(profile=profiles, names=st.just([]) | st.sampled_from([["alpha"], ["beta", BIG]]))
    def upgrade(self, profile: str, names: list[str]) -> None:
        self.type(profile, "upgrade", *names)

    @rule(profile=profiles, verb=st.sampled_from(["hold", "unhold"]), name=packs)
    def hold(self, profile: str, verb: str, name: str) -> None:
        self.type(profile, verb, name)

    @rule(profile=profiles, words=st.sampled_from([["pin", f"{BIG}@>=1"], ["unpin", BIG]]))
    def pin(self, profile: str, words: list[str]) -> None:
        self.type(profile, *words)

    @rule(profile=profiles, mark=st.sampled_from(["auto", "manual"]), name=packs)
    def mark(self, profile: str, mark: str, name: str) -> None:
        self.type(profile, "mark", mark, name)

    @rule(profile=profiles, verb=st.sampled_from(["install", "remove"]))
    def base(self, profile: str, verb: str) -> None:
        self.type(profile, "base", verb, "tiny")

    @rule(profile=profiles, verb=st.sampled_from(["undo", "undo", "redo"]))
    def back_and_forth(self, profile: str, verb: str) -> None:
        self.type(profile, verb)

    @rule(profile=profiles, data=st.data())
    def rollback(self, profile: str, data: st.DataObject) -> None:
        newest = self.model.profile(profile).number
        self.type(profile, "rollback", str(data.draw(st.integers(0, newest + 1))))

    @rule(profile=profiles, verb=st.sampled_from(["autoremove", "repair", "gc", "clean"]))
    def tidy(self, profile: str, verb: str) -> None:
        self.type(profile, verb)

    @rule()
    @precondition(lambda self: self.model.profiles)
    def free_everything(self) -> None:
        self.cli.ok("gc", "--yes")
        self.cli.ok("clean", "--yes")
        disk.check_clean(self.cli.home, self.model, self.world)

    @invariant()
    def state_is_what_it_should_be(self) -> None:
        for name in PROFILES:
            profile = self.model.profile(name)
            listed = self.cli.ok("--profile", name, "list", "--json").json
            assert listed["generation"] == profile.number
            assert recorded(listed) == described(profile.now, self.world)
            kept = [g.number for g in Home(self.cli.home, name).generations()]
            assert kept == list(range(profile.number, 0, -1))

    @invariant()
    def everything_is_whole(self) -> None:
        for name in PROFILES:
            self.cli.ok("--profile", name, "verify")

    def teardown(self) -> None:
        self.free_everything()


def run(examples: int, steps: int, folder: Path) -> None:
    """Type that many sequences of that many commands."""
    with mock.patch("os.fsync"), world(folder / "world", chunk=2000) as things:
        run_state_machine_as_test(
            lambda: Commands(things, folder),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_a_few_sequences_of_commands(place: Path) -> None:
    run(8, 12, place)


@pytest.mark.torture
def test_many_sequences_of_commands(place: Path) -> None:
    run(60, 30, place)
