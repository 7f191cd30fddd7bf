"""What every name can stand for, and which of these options cannot be together."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from mbpm.resolver.option import Clash, Exclusion, Option, requirement, unversioned
from mbpm.resolver.problem import Problem
from specs.errors import NotFoundError
from specs.names import HARDWARE
from specs.versions import Requirement

if TYPE_CHECKING:
    from mbpm.catalogue import Candidate


class Shelf:
    """What was looked up, kept for the problems that vary one."""

    def __init__(self, problem: Problem) -> None:
        self._lookup, self._providers = problem.lookup, problem.providers
        self._candidates: dict[str, tuple[Candidate, ...]] = {}
        self._stand_ins: dict[str, tuple[str, ...]] = {}
        self.missing: dict[str, NotFoundError] = {}

    def candidates(self, name: str) -> tuple[Candidate, ...]:
        """Every version on offer; none where nobody knows the name."""
        if name not in self._candidates:
            try:
                self._candidates[name] = tuple(self._lookup(name))
            except NotFoundError as error:
                self.missing[name] = error
                self._candidates[name] = ()
        return self._candidates[name]

    def providers(self, name: str) -> tuple[str, ...]:
        """Packs on offer that provide or replace a name."""
        if name not in self._stand_ins:
            self._stand_ins[name] = tuple(self._providers(name))
        return self._stand_ins[name]


class Options:
    """The options of every name, made when they are first asked for."""

    def __init__(self, problem: Problem, shelf: Shelf | None = None) -> None:
        self.problem = problem
        self.shelf = shelf or Shelf(problem)
        self.asked = {r.name for r in problem.requests}
        self.staying: set[str] = set()
        """Installed packs that nothing justifies removing."""
        self._packs: dict[str, tuple[Option, ...]] = {}
        self._ranked: dict[tuple[str, bool], tuple[Option, ...]] = {}
        self._stand_ins: dict[str, tuple[Option, ...]] = {}
        self._absent: dict[str, Option] = {}
        self._own: dict[str, Option] = {}
        self._local: dict[str, list[str]] = {}
        self._pinned: dict[str, list[Candidate]] = {}
        for request in problem.requests:
            if request.pinned is not None:
                self._pinned.setdefault(request.name, []).append(request.pinned)
        at_hand = [(n, i.candidate) for n, i in problem.installed.items()]
        at_hand += [(n, c) for n, cs in self._pinned.items() for c in cs]
        for name, candidate in at_hand:
            for other in (*candidate.line.provides, *candidate.line.replaces):
                if other != name and name not in self._local.setdefault(other, []):
                    self._local[other].append(name)

    def own(self, name: str) -> Option | None:
        """The installed version of a name; looks nothing up."""
        record = self.problem.installed.get(name)
        if record is None:
            return None
        if name not in self._own:
            digest, candidate = record.candidate.line.manifest, record.candidate
            for pinned in self._pinned.get(name, ()):
                if pinned.line.manifest == digest:
                    candidate = pinned
            broken = frozenset() if self.problem.exact else self._broken(record.candidate)
            self._own[name] = Option(name, candidate, installed=True, broken=broken)
        return self._own[name]

    def of(self, name: str, candidate: Candidate) -> Option:
        """The option that is this candidate."""
        own = self.own(name)
        if own is not None and own.candidate is candidate:
            return own
        return next(o for o in self.packs(name) if o.candidate is candidate)

    def _broken(self, candidate: Candidate) -> frozenset[str]:
        """What an installed pack requires and does not have now: no reason to refuse others."""
        installed = self.problem.installed
        missing = set()
        for name, text in candidate.line.requires.items():
            there, wanted = installed.get(name), requirement(text)
            if there is not None and wanted.admits(there.candidate.version, prereleases=True):
                continue
            if unversioned(wanted) and any(n in installed for n in self._local.get(name, ())):
                continue
            missing.add(name)
        return frozenset(missing)

    def packs(self, name: str) -> tuple[Option, ...]:
        """Every version of a name, newest first, those that are excluded too."""
        if name not in self._packs:
            own = self.own(name)
            candidates = self._pinned.get(name) or self.shelf.candidates(name)
            found = {own.candidate.line.manifest: own} if own and own.candidate else {}
            for candidate in candidates:
                if candidate.line.manifest not in found:
                    option = Option(name, candidate, excluded=self._exclusion(candidate))
                    found[candidate.line.manifest] = option
            newest = sorted(found.values(), key=lambda o: o.version.precedence, reverse=True)
            self._packs[name] = tuple(newest)
        return self._packs[name]

    def _exclusion(self, candidate: Candidate) -> Exclusion | None:
        problem, line, name = self.problem, candidate.line, candidate.line.name
        record = problem.installed.get(name)
        locked = problem.locked.get(name) == line.manifest
        if record is not None and name not in problem.remove:
            if record.held:
                return Exclusion("held", f"is held at {record.candidate.version}")
            if record.pin and not record.pin.admits(
                candidate.version, prereleases=problem.prereleases
            ):
                return Exclusion("pinned", f"is pinned to `{record.pin}`")
        if line.yanked and not locked and candidate not in self._pinned.get(name, ()):
            return Exclusion("yanked", "is yanked")
        if line.base.fingerprint not in problem.bases:
            base = f"base {line.base.name} ({line.base.fingerprint[:12]})"
            return Exclusion("base", f"was made for {base}, which no registry offers")
        for need, text in line.requires.items():
            if need in HARDWARE:
                there = problem.hardware.get(need)
                if there is None or not requirement(text).admits(there):
                    has = "has none" if there is None else f"has {there}"
                    return Exclusion("hardware", f"needs `{need} {text}`, and this machine {has}")
        if (
            record is not None
            and not (problem.requests or problem.exact or locked)
            and candidate.version < record.candidate.version
        ):
            return Exclusion("older", "is older than what is installed")
        return None

    def stand_ins(self, name: str) -> tuple[Option, ...]:
        """Other packs in place of a name: those at hand first, then in the registries' order."""
        if name not in self._stand_ins:
            names = sorted(self._local.get(name, ()), key=lambda n: n not in self.asked)
            offered = {*self._asked_instead.get(name, ()), *self.shelf.providers(name)}
            more = offered.difference(names, [name])
            names += sorted(more, key=lambda n: (n not in self.asked, n))
            self._stand_ins[name] = tuple(
                made
                for n in names
                for made in (self._replacing(name, n), Option(name, via=n))
                if made
            )
        return self._stand_ins[name]

    def _replacing(self, name: str, by: str) -> Option | None:
        """A pack that takes the place of an installed one, where it may."""
        record = self.problem.installed.get(name)
        if record is None or record.held or name in self.asked:
            return None
        if by not in self.asked and not self.problem.removable:
            return None
        for option in self.packs(by):
            if not option.excluded and option.replaces(name, record.candidate.version):
                assert option.candidate is not None
                return Option(
                    name, via=by, replacing=requirement(option.candidate.line.replaces[name])
                )
        return None

    def newest(self, name: str) -> Option | None:
        """The newest version that can be had without naming it."""
        for option in self.packs(name):
            if option.excluded is None and self.opted_in(option):
                return option
        return None

    def opted_in(self, option: Option) -> bool:
        """Whether a version can be chosen where nothing says which: a pre-release only where the
        person named it."""
        problem, name = self.problem, option.name
        if option.candidate is None or option.installed or problem.prereleases:
            return True
        if option.version.prerelease is None:
            return True
        if name in self._pinned or problem.locked.get(name) == option.candidate.line.manifest:
            return True
        named = [r.requirement for r in problem.requests if r.name == name]
        if name in problem.installed:
            named.append(problem.installed[name].pin)
        return any(r is not None and r.admits(option.version) for r in named)

    def absent(self, name: str) -> Option:
        """Not having it."""
        if name not in self._absent:
            self._absent[name] = Option(name)
        return self._absent[name]

    def supplanted(self, name: str) -> bool:
        """Whether another pack may take the place of an installed one."""
        record = self.problem.installed.get(name)
        if record is None or record.held or name in self.asked:
            return False
        if self.problem.removable:
            return any(o.replacing is not None for o in self.stand_ins(name))
        return name in self._replaced

    @cached_property
    def _asked_instead(self) -> dict[str, set[str]]:
        """Name -> packs asked for that can take its place, whoever offers them."""
        found: dict[str, set[str]] = {}
        for name in self.asked:
            for option in self.packs(name):
                if option.candidate is not None:
                    line = option.candidate.line
                    for other in (*line.provides, *line.replaces):
                        found.setdefault(other, set()).add(name)
        return found

    @cached_property
    def _replaced(self) -> frozenset[str]:
        """What the packs asked for replace."""
        offers = [o for name in sorted(self.asked) for o in self.packs(name)]
        return frozenset(n for o in offers if o.candidate for n in o.candidate.line.replaces)

    def stays_first(self, name: str) -> bool:
        """Whether what is installed is the best choice for a name."""
        problem = self.problem
        own = self.own(name)
        if own is None or own.candidate is None or name in problem.upgrade:
            return False
        locked = problem.locked.get(name)
        return locked in (None, own.candidate.line.manifest) and not self.supplanted(name)

    def ranked(self, name: str, *, stand_ins: bool = True) -> tuple[Option, ...]:
        """What can be chosen for a name, the best first; without its absence.

        Locked versions come first, then what takes the place of an installed pack where that is
        wanted, then what is installed, then the newest. A pack of another name comes before the
        pack itself only where it is at hand anyway.
        """
        if (name, stand_ins) not in self._ranked:
            problem = self.problem
            digest = problem.locked.get(name)
            packs = [o for o in self.packs(name) if not o.excluded]

            def rank(option: Option) -> int:
                if option.candidate is None:
                    if option.replacing is not None:
                        return 1 if self._supersedes(option, packs) else 5
                    here = option.via in self.asked or option.via in problem.installed
                    return 3 if here else 5
                if option.candidate.line.manifest == digest:
                    return 0
                return 2 if option.installed and name not in problem.upgrade else 4

            found = [*packs, *(self.stand_ins(name) if stand_ins else ())]
            self._ranked[name, stand_ins] = tuple(sorted(found, key=rank))
        return self._ranked[name, stand_ins]

    def _supersedes(self, option: Option, packs: list[Option]) -> bool:
        """Whether a replacement is better than any version of what it replaces."""
        if option.via in self.asked or not packs:
            return True
        assert option.replacing is not None
        return option.replacing.admits(packs[0].version, prereleases=True)

    def satisfies(self, option: Option, wanted: Requirement) -> bool:
        """Whether an option is what a pack requires; what stands in for a name has no version."""
        if option.candidate is None:
            return option.via is not None and unversioned(wanted)
        # whoever has a pre-release wanted it
        early = self.problem.prereleases or (option.installed and not self.problem.exact)
        return wanted.admits(option.version, prereleases=early)

    def can_stand(self, option: Option, pack: Option) -> bool:
        """Whether a version of the pack that `option` names can stand in for its name."""
        if pack.candidate is None:
            return False
        if option.replacing is not None:
            record = self.problem.installed[option.name]
            return pack.replaces(option.name, record.candidate.version)
        return option.name in pack.stands_for

    def clash(self, a: Option, b: Option) -> Clash | None:
        """Why options of two names cannot be together, if so."""
        if a.installed and b.installed and not self.problem.exact:
            return None
        return self._against(a, b) or self._against(b, a) or self._bases(a, b)

    def _against(self, a: Option, b: Option) -> Clash | None:
        if a.via is not None:
            if a.via != b.name or (self.can_stand(a, b) and self.opted_in(b)):
                return None
            return Clash("stands", a)
        needed = a.required.get(b.name)
        if needed is not None and not self.satisfies(b, needed):
            return Clash("requires", a, b.name, needed)
        if b.candidate is None:
            return None
        for name, wanted in a.refuses:
            if (name == b.name and wanted.admits(b.version, prereleases=True)) or (
                name in b.stands_for and unversioned(wanted)
            ):
                assert a.candidate is not None
                replaced = name not in a.candidate.line.conflicts
                return Clash("replaces" if replaced else "conflicts", a, name, wanted)
        return None

    def base_name(self, option: Option) -> str:
        """Under what name the base of a pack is installed."""
        assert option.candidate is not None
        base = option.candidate.line.base
        return self.problem.bases.get(base.fingerprint, base.name)

    def _bases(self, a: Option, b: Option) -> Clash | None:
        if a.candidate is None or b.candidate is None:
            return None
        one, other = a.candidate.line.base.fingerprint, b.candidate.line.base.fingerprint
        if one == other or self.base_name(a) != self.base_name(b):
            return None
        return Clash("base", a)
