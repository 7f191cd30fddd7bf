"""A choice of packs: whether it holds together, and what there is to tell about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mbpm.resolver.option import Option, phrase, requirement, unversioned
from mbpm.resolver.options import Options
from mbpm.resolver.problem import Solution
from specs.versions import Requirement, Version


class Chosen:
    """Packs that are installed afterwards."""

    def __init__(self, options: Options, packs: Mapping[str, Option]) -> None:
        self._options = options
        self.packs = dict(packs)
        self._standing: dict[str, list[Option]] = {}
        for option in self.packs.values():
            for name in option.stands_for:
                self._standing.setdefault(name, []).append(option)

    def meeting(self, name: str, wanted: Requirement) -> list[Option]:
        """The packs that are what a requirement on a name asks for."""
        found = list(self._standing.get(name, ())) if unversioned(wanted) else []
        pack = self.packs.get(name)
        if pack is not None and self._options.satisfies(pack, wanted):
            found.insert(0, pack)
        return found

    def _refused(self, name: str, wanted: Requirement) -> list[Option]:
        """The packs that a conflict on a name means."""
        found = list(self._standing.get(name, ())) if unversioned(wanted) else []
        pack = self.packs.get(name)
        if pack is not None and wanted.admits(pack.version, prereleases=True):
            found.append(pack)
        return found

    def broken(self) -> set[str]:
        """Installed packs that have a part in a demand which does not hold."""
        names: set[str] = set()
        exact = self._options.problem.exact
        bases: dict[str, list[Option]] = {}
        for option in self.packs.values():
            for name, wanted in option.requires:
                if not self.meeting(name, wanted):
                    names |= {option.name, name}
            for name, wanted in option.refuses:
                for rival in self._refused(name, wanted):
                    if rival is not option and (
                        exact or not (option.installed and rival.installed)
                    ):
                        names |= {option.name, rival.name}
            bases.setdefault(self._options.base_name(option), []).append(option)
        for users in bases.values():
            fingerprints = {o.candidate.line.base.fingerprint for o in users if o.candidate}
            if len(fingerprints) > 1 and not all(o.installed for o in users):
                names |= {o.name for o in users}
        return names & self._options.problem.installed.keys()

    def removed(self) -> list[str]:
        """Installed packs that go."""
        return sorted(self._options.problem.installed.keys() - self.packs.keys())

    def removed_needlessly(self) -> set[str]:
        """Installed packs that go although nothing replaces or conflicts with them."""
        names = set(self.removed()) - self._options.problem.remove - self._options.staying
        return {n for n in names if self._rival(n) is None}

    def _rival(self, name: str) -> tuple[str, Option] | None:
        own = self._options.own(name)
        assert own is not None
        for option in self.packs.values():
            clash = self._options.clash(option, own)
            if clash is not None and clash.kind in ("replaces", "conflicts"):
                return clash.kind, option
        return None

    def with_better_upgrades(self) -> dict[str, Option]:
        """The choice with every pack to upgrade as new as the rest of the choice lets it be."""
        for name in sorted(self._options.problem.upgrade & self.packs.keys()):
            for option in self._newer(name):
                if option.excluded is None and self._why_not(option) is None:
                    better = Chosen(self._options, {**self.packs, name: option})
                    if not better.broken():
                        return better.with_better_upgrades()
        return self.packs

    def _newer(self, name: str) -> list[Option]:
        """Versions newer than the chosen one that could be wanted, newest first."""
        chosen = self.packs[name]
        return [
            o
            for o in self._options.packs(name)
            if o.version.precedence > chosen.version.precedence
            and (o.excluded is None or o.excluded.kind not in ("yanked", "older"))
            and self._options.opted_in(o)
        ]

    def _why_not(self, option: Option) -> str | None:
        """Why a version is not in place of the chosen one, if there is a reason."""
        options, name = self._options, option.name
        if option.excluded is not None:
            record = options.problem.installed[name]
            if option.excluded.kind == "pinned":
                return f"pinned to {record.pin}"
            if option.excluded.kind == "held":
                return "held"
            return f"{option.version} {option.excluded.what}"
        for other in self.packs.values():
            if other.name == name:
                continue
            for need, wanted in other.requires:
                if need == name and not options.satisfies(option, wanted):
                    return f"{other} requires {phrase(name, wanted)}"
            clash = options.clash(option, other)
            if clash is None:
                continue
            if clash.kind == "replaces" and clash.by is option:
                return f"{option} replaces {other.name}; `mbpm full-upgrade`"
            if clash.kind in ("conflicts", "replaces"):
                return f"{option} conflicts with {other}"
            if clash.kind == "base":
                return (
                    f"{option} was made for another base {options.base_name(option)} than {other}"
                )
        for need, wanted in option.requires:
            if not self.meeting(need, wanted):
                return f"{option} requires {phrase(need, wanted)}"
        return None

    def _kept_back(self) -> Iterator[tuple[str, tuple[Version, str]]]:
        problem = self._options.problem
        for name in sorted(problem.upgrade & self.packs.keys()):
            newer = self._newer(name)
            replacement = self._replacement(name)
            if newer and problem.installed[name].held:
                yield name, (newer[0].version, "held")
            elif replacement is not None:
                yield name, (replacement.version, self._why_not_replaced(name, replacement))
            elif newer:
                reason = self._why_not(newer[0]) or "another upgrade excludes it"
                yield name, (newer[0].version, reason)

    def _replacement(self, name: str) -> Option | None:
        """The newest pack that would take the place of an installed one that stays."""
        if self.packs[name] is not self._options.own(name):
            return None
        version = self.packs[name].version
        for stand_in in self._options.stand_ins(name):
            if stand_in.via is not None and stand_in.via not in self.packs:
                for option in self._options.packs(stand_in.via):
                    offered = option.excluded is None and self._options.opted_in(option)
                    if offered and option.replaces(name, version):
                        return option
        return None

    def _why_not_replaced(self, name: str, by: Option) -> str:
        if self._options.problem.installed[name].held:
            return "held"
        if not self._options.problem.removable:
            return f"its replacement `{by.name}` removes it; `mbpm full-upgrade`"
        for other in self.packs.values():
            for need, wanted in other.requires:
                if need == name and not unversioned(wanted):
                    return f"{other} requires {phrase(name, wanted)}"
        without = Chosen(self._options, {n: o for n, o in self.packs.items() if n != name})
        return without._why_not(by) or f"its replacement `{by.name}` cannot be installed"

    def _needed_by(self) -> dict[str, tuple[str, ...]]:
        users: dict[str, list[str]] = {name: [] for name in self.packs}
        for option in self.packs.values():
            assert option.candidate is not None
            line = option.candidate.line
            soft = [(n, requirement(t)) for n, t in line.recommends.items() if n != option.name]
            for name, wanted in (*option.requires, *soft):
                for pack in self.meeting(name, wanted):
                    if pack is not option and str(option) not in users[pack.name]:
                        users[pack.name].append(str(option))
        return {name: tuple(sorted(by)) for name, by in users.items()}

    def _why_removed(self, name: str) -> str:
        problem = self._options.problem
        if name in problem.remove:
            return "you asked for it"
        rival = self._rival(name)
        if rival is not None and rival[0] == "replaces":
            return f"replaced by {rival[1]}"
        if problem.exact:
            return "nothing asks for it"
        return f"conflicts with {rival[1]}" if rival is not None else "nothing asks for it"

    def solution(self, left_out: Mapping[str, str]) -> Solution:
        """The answer to the problem."""
        return Solution(
            packs={n: o.candidate for n, o in sorted(self.packs.items()) if o.candidate},
            needed_by=self._needed_by(),
            removed={n: self._why_removed(n) for n in self.removed()},
            left_out=dict(sorted(left_out.items())),
            kept_back=dict(self._kept_back()),
        )
