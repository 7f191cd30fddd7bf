"""Random commands, killed at random moments, and everything that must be true afterwards."""

from __future__ import annotations

import gc
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbpm.home import Home
from tests.support import faults
from tests.support.cli import Cli
from tests.torture import disk
from tests.torture.model import Content, Model
from tests.torture.world import BIG, FOLDERS, VERSIONS, World

READERS = (
    ["list"],
    ["history"],
    ["history", "--json"],
    ["base", "list"],
    ["tree"],
    ["outdated"],
    ["profile", "list"],
    ["gc", "--dry-run"],
    ["clean", "--dry-run"],
)
PROFILES = ("default", "default", "default", "work")


@dataclass
class Report:
    """What a run did."""

    kills: int = 0
    commands: int = 0
    undone: int = 0
    """Kills after which the old generation counted, although the command would have made a new
    one."""
    done: int = 0
    """Kills after which the new one did."""
    resumed: int = 0
    """Kills after which the same command went on with what the killed one had fetched."""
    kinds: dict[str, int] = field(default_factory=dict)
    """Command -> kills."""

    def add(self, other: Report) -> None:
        """Count another run in."""
        self.kills += other.kills
        self.commands += other.commands
        self.undone += other.undone
        self.done += other.done
        self.resumed += other.resumed
        for kind, count in other.kinds.items():
            self.kinds[kind] = self.kinds.get(kind, 0) + count

    def __str__(self) -> str:
        kinds = ", ".join(f"{k} {n}" for k, n in sorted(self.kinds.items()))
        return (
            f"{self.kills} kills of {self.commands} commands ({kinds}): {self.undone} left the old "
            f"generation, {self.done} the new one, {self.resumed} a part that the next went on with"
        )


class Torture:
    """One home, and the state it ought to be in."""

    def __init__(
        self, world: World, folder: Path, seed: str, *, links: bool = True, locks: int | None = None
    ) -> None:
        """Arguments as `disk.check_clean` and `faults.poor_file_system` have them."""
        self.world = world
        self._links = links
        self._before = faults.poor_file_system(links=links, locks=locks)
        self.home = folder / "home"
        configure(self.home, world)
        self._copy = folder / "copy"
        self.model = Model()
        self.report = Report()
        self._rng = random.Random(seed)
        self._trail = [f"seed {seed}"]
        self._steps: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def run(self, kills: int) -> Report:
        """Go on until so many commands were killed.

        Raises:
            AssertionError: something is not as it ought to be; the message tells the whole story.
        """
        # what the server sent to tests before this one is not counted
        self.world.server.sent()
        try:
            while self.report.kills < kills:
                self._one()
            self._settle(self.home, self.model)
        except AssertionError as error:
            raise AssertionError("\n".join([*self._trail, str(error)])) from error
        finally:
            shutil.rmtree(self._copy, ignore_errors=True)
        return self.report

    def _one(self) -> None:
        rng = self._rng
        profile = rng.choice(PROFILES)
        words = self._words(profile)
        before = disk.have(self.home, self.world)
        after, code = self.model.after(profile, words)
        ended = self._victim(profile, words)
        self.report.commands += 1
        self._check_sent(before)
        if not ended.killed:
            assert ended.code == code, f"exits with {ended.code}, not {code}: {ended.err}"
            self.model = after
            self._learn(words[0], ended)
            self._check_state()
            return
        self.report.kills += 1
        self.report.kinds[words[0]] = self.report.kinds.get(words[0], 0) + 1
        self._which(after)
        self._check_readers()
        self._check_end(profile, words)

    def _words(self, profile: str) -> list[str]:
        for _ in range(10):
            words = random_words(self._rng, self.model.profile(profile).number, self.world)
            changes = self.model.after(profile, words)[0] != self.model
            if changes or words[0] in ("gc", "clean", "repair") or self._rng.random() < 0.1:
                break
        return words

    def _victim(self, profile: str, words: Sequence[str]) -> faults.Ended:
        rng, verb = self._rng, words[0]
        typed = arguments(self.world, profile, words)
        if rng.random() < 0.1:
            ended = self._command(typed)
        elif rng.random() < 0.3:
            # while blobs are on their way, and around what makes the change count
            since, steps = rng.choice(
                [(".chunks", 80), ("os.rename /journal.json", 40), ("/current", 12)]
            )
            ended = self._command(typed, kill=rng.randint(1, steps), since=since)
        elif rng.random() < 0.6:
            moment = rng.randint(1, self._steps.get(verb, 60) + 1)
            ended = self._command(typed, kill=moment)
        else:
            child = faults.start(typed, home=self.home, before=self._before)
            time.sleep(rng.random() * self._seconds.get(verb, 0.3))
            child.kill()
            ended = child.wait()
        how = f"killed in step {ended.steps} ({ended.last})" if ended.killed else f"{ended.code}"
        self._trail.append(f"{profile}: {' '.join(typed)} -> {how}")
        return ended

    def _command(self, typed: Sequence[str], home: Path | None = None, **more: Any) -> faults.Ended:
        return faults.command(typed, home=home or self.home, before=self._before, **more)

    def _learn(self, verb: str, ended: faults.Ended) -> None:
        """How long such a command takes, a longer one for a while to come."""
        self._steps[verb] = max(ended.steps, self._steps.get(verb, 0) * 3 // 4)
        self._seconds[verb] = max(ended.seconds, self._seconds.get(verb, 0) * 0.75)

    def _which(self, after: Model) -> None:
        """The state is the old one or the new one, and nothing between."""
        if after != self.model and self._observed() == self._described(after):
            self.model = after
            self.report.done += 1
        else:
            self.report.undone += after != self.model
            self._check_state()

    def _check_state(self) -> None:
        found, expected = self._observed(), self._described(self.model)
        assert found == expected, f"found {found}\nexpected {expected}"

    def _observed(self) -> dict[str, Any]:
        return {p: self._listed(p) for p in dict.fromkeys(PROFILES)}

    def _listed(self, profile: str) -> dict[str, Any]:
        listed = Cli(self.home).ok("--profile", profile, "list", "--json").json
        current = Home(self.home, profile).current()
        assert [p.model_dump(mode="json") for p in current.packs] == listed["packs"]
        assert current.number == listed["generation"]
        return {"number": listed["generation"], **recorded(listed)}

    def _described(self, model: Model) -> dict[str, Any]:
        return {
            name: {
                "number": model.profile(name).number,
                **described(model.profile(name).now, self.world),
            }
            for name in dict.fromkeys(PROFILES)
        }

    def _check_sent(self, before: disk.Chunks) -> None:
        """No byte was sent of a chunk that was there, and none twice."""
        seen: dict[str, list[tuple[int, int]]] = {}
        for sent in self.world.server.sent():
            digest = self.world.paths.get(sent.path)
            if digest is None:
                continue
            for index in before.get(digest, ()):
                start, stop = index * disk.CHUNK_BYTES, (index + 1) * disk.CHUNK_BYTES
                assert sent.stop <= start or stop <= sent.start, (
                    f"{sent} holds bytes of chunk {index}, which was there already"
                )
            for start, stop in seen.get(digest, ()):
                assert sent.stop <= start or stop <= sent.start, f"{sent}: bytes were sent before"
            seen.setdefault(digest, []).append((sent.start, sent.stop))

    def _check_readers(self) -> None:
        """Whoever looks sees something whole, while what was killed is still lying around."""
        for profile in dict.fromkeys(PROFILES):
            Cli(self.home).ok("--profile", profile, "verify")
        for words in self._rng.sample(READERS, 2):
            ended = self._command(["--profile", self._rng.choice(PROFILES), *words])
            assert ended.code == 0, f"{words}: {ended.err}"

    def _check_end(self, profile: str, words: Sequence[str]) -> None:
        """The next writer puts everything right, and nothing is left: tried on a copy."""
        disk.copy_home(self.home, self._copy)
        now = self._refill(self.model) if words[0] in ("gc", "purge") else self.model
        after, code = now.after(profile, words)
        before, stored = disk.have(self._copy, self.world), disk.stored(self._copy)
        again = self._command(arguments(self.world, profile, words), self._copy)
        self._check_sent(before)
        self.report.resumed += bool(before.keys() & (disk.stored(self._copy) - stored))
        assert again.code == code, f"again: exits with {again.code}, not {code}: {again.err}"
        self._settle(self._copy, after)

    def _refill(self, model: Model) -> Model:
        """Install what may be half-way out, in a profile of its own."""
        words = ["install", "beta", BIG, "left@=2.0.0"]
        after, code = model.after("third", words)
        ended = self._command(arguments(self.world, "third", words), self._copy)
        assert ended.code == code == 0, ended.err
        Cli(self._copy).ok("--profile", "third", "verify")
        self.world.server.sent()
        return after

    def _settle(self, home: Path, model: Model) -> None:
        for words in (["gc", "--yes"], ["clean", "--yes"]):
            ended = self._command(words, home)
            assert ended.code == 0, f"{words}: {ended.err}"
        disk.check_clean(home, model, self.world, links=self._links)


def recorded(listed: dict[str, Any]) -> dict[str, Any]:
    """What `list` or a generation says, as `described` has it."""
    fields = ("version", "auto", "held", "pin", "registry", "manifest")
    return {
        "packs": {p["name"]: [p[k] for k in fields] for p in listed["packs"]},
        "bases": {b["name"]: [b["auto"], b["card"]] for b in listed["bases"]},
    }


def described(content: Content, world: World) -> dict[str, Any]:
    """What `list` ought to say."""
    return {
        "packs": {
            n: [
                p.version,
                p.auto,
                p.held,
                p.pin,
                world.label_of(n, p.version),
                world.packs[n, p.version].document,
            ]
            for n, p in content.packs.items()
        },
        "bases": {b: [auto, world.base.document] for b, auto in content.bases.items()},
    }


def warm_up(world: World, home: Path) -> None:
    """Import what commands import, so that no child has to."""
    cli, registry = Cli(home), ["--registry", world.registry, "--yes"]
    cli.ok("install", "alpha@=1.0.0", world.folders[FOLDERS[0]], *registry)
    cli.ok("upgrade", *registry)
    cli.ok("repair", *registry)
    for words in (["undo"], ["redo"], ["purge", "alpha"], ["gc"], ["clean"]):
        cli.ok(*words, "--yes")
    for words in (["hold", "omega"], ["verify"], *READERS):
        cli.ok(*words)
    # what was sent so far is nobody's business, once no connection is left open
    gc.collect()
    world.server.sent()


def configure(home: Path, world: World) -> None:
    """Make the registry a known one: going back asks no other."""
    Cli(home).ok("registry", "add", "world", world.registry)


def arguments(world: World, profile: str, words: Sequence[str]) -> list[str]:
    """The whole command line that nothing is asked for."""
    typed = ["--profile", profile, *words]
    if words[0] not in ("hold", "unhold", "pin", "unpin", "mark"):
        typed.append("--yes")
    if words[0] in ("install", "upgrade", "repair") or list(words[:2]) == ["base", "install"]:
        typed += ["--registry", world.registry]
    return typed


def random_words(rng: random.Random, generations: int, world: World) -> list[str]:
    """A command that may or may not make sense now."""
    name = rng.choice(list(VERSIONS))
    choices: list[tuple[int, Callable[[], list[str]]]] = [
        (8, lambda: ["install", _target(rng, world)]),
        (2, lambda: ["install", *_two_targets(rng, world)]),
        (3, lambda: ["upgrade"]),
        (1, lambda: ["upgrade", rng.choice(["alpha", "beta", BIG])]),
        (3, lambda: ["remove", rng.choice([*VERSIONS, "omega"])]),
        (1, lambda: ["remove", name, "--autoremove"]),
        (2, lambda: ["purge", rng.choice([*VERSIONS, "omega"])]),
        (1, lambda: ["autoremove"]),
        (1, lambda: ["base", rng.choice(["install", "remove"]), "tiny"]),
        (1, lambda: [rng.choice(["hold", "unhold"]), rng.choice([*VERSIONS, "omega"])]),
        (1, lambda: rng.choice([["pin", f"{BIG}@>=1"], ["unpin", BIG]])),
        (1, lambda: ["mark", rng.choice(["auto", "manual"]), name]),
        (3, lambda: ["undo"]),
        (2, lambda: ["redo"]),
        (2, lambda: ["rollback", str(rng.randint(0, max(1, generations)))]),
        (2, lambda: ["gc"]),
        (1, lambda: ["clean"]),
        (1, lambda: ["repair"]),
    ]
    weights = [w for w, _ in choices]
    return rng.choices([make for _, make in choices], weights)[0]()


def _two_targets(rng: random.Random, world: World) -> list[str]:
    while True:
        targets = [_target(rng, world), _target(rng, world)]
        if len({t.rpartition("/")[2].partition("@")[0].partition("-")[0] for t in targets}) == 2:
            return targets


def _target(rng: random.Random, world: World) -> str:
    name = rng.choice(["alpha", "beta", BIG, BIG, "left", "omega"])
    if name == "omega":
        return str(world.folders[rng.choice(FOLDERS)])
    version = rng.choice(VERSIONS[name])
    # what is chosen for a pair that does not say which is the resolver's business
    return f"{name}@={version}" if name == "left" or rng.random() < 0.5 else name
