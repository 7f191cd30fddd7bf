"""Finding a choice, or that there is none, where wrong choices are many (`nogoods` has the method).

Packs are looked up as choices lead to them. What one version demands is noted for all versions of
the pack that demand the same, so that a dead end rules out all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mbpm.resolver.nogoods import Nogood, Nogoods, axioms
from mbpm.resolver.option import Option, unversioned
from mbpm.resolver.options import Options
from mbpm.resolver.search import at_hand_first, reached, turn
from mbpm.resolver.wants import Want, allows
from specs.errors import ResolutionError
from specs.versions import Requirement

MAX_DEAD_ENDS = 1_000


@dataclass(frozen=True)
class NoChoice:
    """That the wants cannot be met."""

    wants: tuple[Want, ...]
    """Those that already cannot be met together."""
    names: frozenset[str]
    """The names it takes to see that."""


def learn(options: Options, wants: Sequence[Want]) -> dict[str, Option] | NoChoice:
    """Choose an option for every name that the wants lead to.

    Returns:
        Name -> a version, for the packs that the wants need; or that there is no choice.

    Raises:
        ResolutionError: it takes too long to know.
    """
    return _Learner(options, wants).run()


@dataclass(frozen=True)
class _Versions:
    """Versions of a pack that have something in common."""

    name: str
    places: int
    old: bool
    """Whether they may be with what else is installed."""


class _Learner:
    def __init__(self, options: Options, wants: Sequence[Want]) -> None:
        self._options = options
        self._wants = wants
        self._nogoods = Nogoods()
        self._domains: dict[str, tuple[Option, ...]] = {}
        self._heard: set[Option | tuple[str, str, str]] = set()
        """Demands that are noted."""
        self._refused: dict[str, list[tuple[_Versions, Requirement]]] = {}
        """Name -> the versions that cannot be with it."""
        self._standing: dict[str, list[str]] = {}
        """Name -> the packs that provide it."""
        self._bases: dict[str, dict[str, int]] = {}
        """Name of a base -> its fingerprints, each with a bit of its own."""
        self._users: dict[str, list[tuple[_Versions, str]]] = {}
        """Name of a base -> versions made for a fingerprint of it, while it has no other."""

    def run(self) -> dict[str, Option] | NoChoice:
        """The answer of `learn`."""
        for want in self._wants:
            self._open(want.key)
            self._nogoods.add((want.key, self._unwanted(want)), want=want)
        dead_ends = 0
        while dead_ends < MAX_DEAD_ENDS:
            met = self._nogoods.propagate()
            if met is not None:
                dead_ends += 1
                learned = self._nogoods.learn(met)
                if not learned.terms:
                    return self._no_choice(learned)
                continue
            name = min(self._nogoods.waiting, key=partial(turn, self._options), default=None)
            if name is None:
                return reached(self._wants, self._chosen())
            option = self._best(name)
            if not self._demand(option):
                self._nogoods.decide(name, self._bit(option))
        raise ResolutionError(
            "gave up looking for versions that go together: there are too many possibilities",
            hint="ask for fewer packs at once, or for exact versions, as `NAME@=1.2.0`",
        )

    def _no_choice(self, learned: Nogood) -> NoChoice:
        said = axioms(learned)
        wants = {n.want: None for n in said if n.want is not None}
        names = {name for nogood in said for name in nogood.names}
        return NoChoice(tuple(wants), frozenset(names & self._domains.keys()))

    # what there is

    def _open(self, name: str) -> None:
        """Take up a name: what can be chosen for it, and what its versions cannot be with."""
        if name in self._domains:
            return
        self._domains[name] = (*self._options.ranked(name), self._options.absent(name))
        nothing = 1 << (len(self._domains[name]) - 1)
        self._nogoods.open(name, 2 * nothing - 1, nothing)
        for by, wanted in self._refused.get(name, ()):
            self._refuse(by, name, wanted)
        self._note_standing(name)
        self._note_refusals(name)
        self._note_bases(name)

    def _which(self, name: str, fits: Callable[[Option], bool]) -> int:
        """The options of a name that are so."""
        return sum(1 << place for place, o in enumerate(self._domains[name]) if fits(o))

    def _bit(self, option: Option) -> int:
        return 1 << self._domains[option.name].index(option)

    def _old(self, option: Option) -> bool:
        """Whether it may be with what else is installed, whatever the two say."""
        return option.installed and not self._options.problem.exact

    def _unwanted(self, want: Want) -> int:
        return self._which(want.key, lambda o: not allows(want, o, self._options))

    # what is chosen

    def _best(self, name: str) -> Option:
        """The best option that is left."""
        left = self._nogoods.left[name]
        found = [o for place, o in enumerate(self._domains[name]) if left >> place & 1]
        there = {o.via for o in found if o.via in self._domains and self._nogoods.needs(o.via)}
        return at_hand_first(found, there)[0]

    def _chosen(self) -> dict[str, Option]:
        needed = (name for name in self._domains if self._nogoods.needs(name))
        left = self._nogoods.left
        return {name: self._domains[name][left[name].bit_length() - 1] for name in needed}

    # what a choice demands

    def _demand(self, option: Option) -> bool:
        """Note what choosing an option demands; whether that was not known yet."""
        name, before = option.name, len(self._heard)
        if option.via is not None and option not in self._heard:
            self._heard.add(option)
            self._stand(option, option.via)
        for other, wanted in option.requires:
            if (name, other, wanted.text) not in self._heard:
                self._heard.add((name, other, wanted.text))
                self._require(name, other, wanted)
        return len(self._heard) > before

    def _stand(self, option: Option, via: str) -> None:
        options = self._options
        self._open(via)
        fits = self._which(via, lambda o: options.can_stand(option, o) and options.opted_in(o))
        self._nogoods.add((option.name, self._bit(option)), (via, ~fits))

    def _require(self, name: str, other: str, wanted: Requirement) -> None:
        satisfies = self._options.satisfies
        self._open(other)
        same = self._which(name, lambda o: o.required.get(other) == wanted)
        fits = self._which(other, lambda o: satisfies(o, wanted))
        self._nogoods.add((name, same), (other, ~fits))

    # what cannot be together

    def _note_refusals(self, name: str) -> None:
        """Note what versions conflict with or replace, also with packs that are taken up later."""
        groups: dict[tuple[str, Requirement, bool], int] = {}
        for place, option in enumerate(self._domains[name]):
            for other, wanted in option.refuses:
                key = (other, wanted, self._old(option))
                groups[key] = groups.get(key, 0) | 1 << place
        for (other, wanted, old), places in groups.items():
            by = _Versions(name, places, old)
            self._refused.setdefault(other, []).append((by, wanted))
            if other in self._domains:
                self._refuse(by, other, wanted)
            for rival in self._standing.get(other, ()) if unversioned(wanted) else ():
                self._refuse_standing(by, rival, other)

    def _note_standing(self, name: str) -> None:
        """Note that a pack provides names, of which some may be refused."""
        provided = {n: None for o in self._domains[name] for n in sorted(o.stands_for)}
        for other in provided:
            self._standing.setdefault(other, []).append(name)
            for by, wanted in self._refused.get(other, ()):
                if unversioned(wanted):
                    self._refuse_standing(by, name, other)

    def _refuse(self, by: _Versions, name: str, wanted: Requirement) -> None:
        self._exclude(
            by,
            name,
            lambda o: o.candidate is not None and wanted.admits(o.version, prereleases=True),
        )

    def _refuse_standing(self, by: _Versions, rival: str, name: str) -> None:
        self._exclude(by, rival, lambda o: name in o.stands_for)

    def _exclude(self, by: _Versions, name: str, means: Callable[[Option], bool]) -> None:
        if by.name != name:
            rivals = self._which(name, lambda o: means(o) and not (by.old and self._old(o)))
            if rivals:
                self._nogoods.add((by.name, by.places), (name, rivals))

    def _note_bases(self, name: str) -> None:
        """Note which bases versions were made for: of those with one name, only one can be there,
        but for what is installed with several already."""
        groups: dict[tuple[str, str, bool], int] = {}
        for place, option in enumerate(self._domains[name]):
            if option.candidate is not None:
                fingerprint = option.candidate.line.base.fingerprint
                group = (self._options.base_name(option), fingerprint, self._old(option))
                groups[group] = groups.get(group, 0) | 1 << place
        for (base, fingerprint, old), places in groups.items():
            known = self._bases.setdefault(base, {})
            known.setdefault(fingerprint, 2 << len(known))
            users = self._users.setdefault(base, [])
            users.append((_Versions(name, places, old), fingerprint))
            if len(known) > 1:
                key = f"base {base}"
                if key not in self._nogoods.left:
                    self._nogoods.open(key, -1, -1)
                for by, made_for in users:
                    # the bit of no base in particular is there for what is installed
                    fits = known[made_for] | int(by.old)
                    self._nogoods.add((by.name, by.places), (key, ~fits))
                users.clear()
