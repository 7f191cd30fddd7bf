"""What every command ought to make of what is installed, worked out without looking at mbpm.

A profile is a list of generations; a command of the model makes at most one more. What a registry
offers is `world.VERSIONS`, the newest last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.torture.world import BASE, FOLDERS, VERSIONS

OK, NOT_FOUND, NO_RESOLUTION = 0, 3, 4


@dataclass(frozen=True)
class Pack:
    """An installed pack."""

    version: str
    auto: bool = False
    held: bool = False
    pin: str | None = None


@dataclass(frozen=True)
class Content:
    """What is installed at one moment."""

    packs: Mapping[str, Pack] = field(default_factory=dict)
    bases: Mapping[str, bool] = field(default_factory=dict)
    """Name -> whether it came for a pack only."""

    def put(self, name: str, pack: Pack) -> Content:
        """With one pack changed or added, and the base it needs."""
        return Content({**self.packs, name: pack}, {BASE: True} | dict(self.bases))

    def without(self, names: Sequence[str]) -> Content:
        """With some packs less."""
        return Content({n: p for n, p in self.packs.items() if n not in names}, self.bases)


@dataclass(frozen=True)
class Profile:
    """The generations of one profile."""

    contents: tuple[Content, ...] = (Content(),)
    """By number; 0 is the empty one."""
    done: tuple[int, ...] = (0,)
    """Generations whose content the changes so far led to, as a text editor keeps them."""
    undone: tuple[int, ...] = ()

    @property
    def number(self) -> int:
        return len(self.contents) - 1

    @property
    def now(self) -> Content:
        return self.contents[-1]

    def change(self, content: Content) -> Profile:
        """A new generation, unless nothing is different."""
        if content == self.now:
            return self
        new = replace(self, contents=(*self.contents, content))
        return replace(new, done=(*self.done, new.number), undone=())


@dataclass(frozen=True)
class Refusal(Exception):
    """A command that changes nothing and says why."""

    code: int


@dataclass(frozen=True)
class Model:
    """All profiles of a home."""

    profiles: Mapping[str, Profile] = field(default_factory=dict)

    def profile(self, name: str) -> Profile:
        return self.profiles.get(name, Profile())

    def after(self, profile: str, words: Sequence[str]) -> tuple[Model, int]:
        """The state after a command, and its exit code."""
        before = self.profile(profile)
        try:
            after = _apply(before, words)
        except Refusal as refusal:
            return self, refusal.code
        if after == before:
            return self, OK
        return Model({**self.profiles, profile: after}), OK


def _apply(profile: Profile, words: Sequence[str]) -> Profile:
    verb, names = words[0], [w for w in words[1:] if not w.startswith("-")]
    now = profile.now
    if verb == "install":
        for target in names:
            now = _install(now, target)
        return profile.change(now)
    if verb == "base":
        return profile.change(_base(now, names[0]))
    if verb in ("remove", "purge"):
        now = _remove(profile, names, purge=verb == "purge")
        return profile.change(_autoremove(now) if "--autoremove" in words else now)
    if verb == "autoremove":
        return profile.change(_autoremove(now))
    if verb == "upgrade":
        return profile.change(_upgrade(now, names))
    if verb in ("hold", "unhold", "pin", "unpin", "mark"):
        return profile.change(_mark(now, verb, names))
    if verb == "undo":
        if len(profile.done) < 2:
            raise Refusal(NOT_FOUND)
        *rest, last = profile.done
        return Profile(
            (*profile.contents, profile.contents[rest[-1]]), tuple(rest), (*profile.undone, last)
        )
    if verb == "redo":
        if not profile.undone:
            raise Refusal(NOT_FOUND)
        *rest, last = profile.undone
        return Profile(
            (*profile.contents, profile.contents[last]), (*profile.done, last), tuple(rest)
        )
    if verb == "rollback":
        if int(names[0]) > profile.number:
            raise Refusal(NOT_FOUND)
        return profile.change(profile.contents[int(names[0])])
    assert verb in ("gc", "clean", "repair"), verb
    return profile


def _install(now: Content, target: str) -> Content:
    if "/" in target:
        name, version = target.rpartition("/")[2].split("-")
        assert name == "omega" and version in FOLDERS
        return _choose(now, name, version)
    name, _, wanted = target.partition("@=")
    if name in now.packs and wanted in ("", now.packs[name].version):
        return now.put(name, replace(now.packs[name], auto=False))
    now = _choose(now, name, wanted or VERSIONS[name][-1])
    if name == "beta" and "alpha" not in now.packs:
        now = now.put("alpha", Pack(VERSIONS["alpha"][-1], auto=True))
    if name == "left":
        now = _choose(now, "right", now.packs["left"].version, auto=True)
    return now


def _choose(now: Content, name: str, version: str, *, auto: bool = False) -> Content:
    old = now.packs.get(name)
    if old is None:
        return now.put(name, Pack(version, auto=auto))
    if old.held and old.version != version:
        raise Refusal(NO_RESOLUTION)
    return now.put(name, replace(old, version=version, auto=old.auto and auto))


def _base(now: Content, verb: str) -> Content:
    if verb == "install":
        return Content(now.packs, {BASE: False})
    if BASE not in now.bases:
        raise Refusal(NOT_FOUND)
    if now.packs:
        raise Refusal(NO_RESOLUTION)
    return Content(now.packs, {})


NEEDS = {"beta": "alpha", "left": "right"}


def _remove(profile: Profile, names: Sequence[str], *, purge: bool) -> Content:
    now = profile.now
    for name in names:
        if name not in now.packs and not (
            purge and any(name in content.packs for content in profile.contents)
        ):
            raise Refusal(NOT_FOUND)
    after = now.without(names)
    for name in after.packs:
        if NEEDS.get(name) in names:
            raise Refusal(NO_RESOLUTION)
    return after


def _autoremove(now: Content) -> Content:
    needed = {NEEDS.get(name) for name, pack in now.packs.items()}
    after = now.without([n for n, p in now.packs.items() if p.auto and n not in needed])
    # what needed the next one may itself be gone now
    if after != now:
        return _autoremove(after)
    bases = {b: auto for b, auto in now.bases.items() if now.packs or not auto}
    return Content(now.packs, bases)


def _upgrade(now: Content, names: Sequence[str]) -> Content:
    if any(name not in now.packs for name in names):
        raise Refusal(NOT_FOUND)
    for name in names or now.packs:
        if name in VERSIONS and name not in ("left", "right") and not now.packs[name].held:
            now = _choose(now, name, VERSIONS[name][-1], auto=True)
    pair = [n for n in ("left", "right") if n in now.packs]
    wanted = not names or set(pair) <= set(names)
    if wanted and not any(now.packs[n].held for n in pair):
        for name in pair:
            now = _choose(now, name, VERSIONS[name][-1], auto=True)
    return now


def _mark(now: Content, verb: str, names: Sequence[str]) -> Content:
    mark = names[0] if verb == "mark" else ""
    targets = names[1:] if verb == "mark" else names
    changed = dict(now.packs)
    for target in targets:
        name, _, pin = target.partition("@")
        if name not in changed:
            raise Refusal(NOT_FOUND)
        changed[name] = replace(
            changed[name],
            **{
                "hold": {"held": True},
                "unhold": {"held": False},
                "pin": {"pin": pin},
                "unpin": {"pin": None},
                "mark": {"auto": mark == "auto"},
            }[verb],
        )
    return Content(changed, now.bases)
