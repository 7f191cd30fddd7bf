"""The rules of installing packs, written down once more, to check the resolver against."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from mbpm.catalogue import Candidate
from mbpm.resolver import Problem
from specs.versions import Requirement

Packs = Mapping[str, Candidate]


def standing(candidate: Candidate) -> set[str]:
    """Other names a version provides."""
    return {*candidate.line.provides, *candidate.line.replaces} - {candidate.line.name}


def same(problem: Problem, candidate: Candidate) -> bool:
    """Whether this very version is installed."""
    record = problem.installed.get(candidate.line.name)
    return record is not None and record.candidate.line.manifest == candidate.line.manifest


def opted_in(problem: Problem, candidate: Candidate) -> bool:
    """Whether it is no pre-release, or one that is there or that the person named."""
    name = candidate.line.name
    if not candidate.version.prerelease or problem.prereleases or same(problem, candidate):
        return True
    named = [r.requirement for r in problem.requests if r.name == name]
    named += [problem.installed[name].pin] if name in problem.installed else []
    locked = problem.locked.get(name) == candidate.line.manifest
    return locked or any(r is not None and r.admits(candidate.version) for r in named)


def meets(problem: Problem, packs: Packs, name: str, text: str) -> bool:
    """Whether a requirement on a name holds."""
    others = (c for c in packs.values() if name in standing(c))
    if text == "*" and any(opted_in(problem, c) for c in others):
        return True
    pack, wanted = packs.get(name), Requirement(text)
    return pack is not None and wanted.admits(pack.version, prereleases=_early(problem, pack))


def _early(problem: Problem, candidate: Candidate) -> bool:
    """Whether a pre-release meets what names none: one that is there already does."""
    return problem.prereleases or (same(problem, candidate) and not problem.exact)


def rivals(candidate: Candidate, packs: Packs) -> Iterator[Candidate]:
    """The packs that a version conflicts with or replaces."""
    line = candidate.line
    for name, text in (*line.conflicts.items(), *line.replaces.items()):
        for other in packs.values():
            if other is candidate or other.line.name == line.name or name == line.name:
                continue
            named = other.line.name == name and Requirement(text).admits(
                other.version, prereleases=True
            )
            if named or (text == "*" and name in standing(other)):
                yield other


def broken(problem: Problem, packs: Packs) -> list[str]:
    """Every rule that a choice of packs breaks, in words; what is broken already does not count."""
    return [
        *_requests(problem, packs),
        *_installed(problem, packs),
        *(text for c in packs.values() for text in _eligible(problem, packs, c)),
        *_together(problem, packs),
    ]


def _requests(problem: Problem, packs: Packs) -> Iterator[str]:
    for request in problem.requests:
        pack = packs.get(request.name)
        if pack is None:
            yield f"{request.name} is not there"
        elif request.requirement and not request.requirement.admits(
            pack.version, prereleases=_early(problem, pack)
        ):
            yield f"{request.name} is not as asked for"


def _installed(problem: Problem, packs: Packs) -> Iterator[str]:
    asked = {r.name for r in problem.requests}
    for name, record in problem.installed.items():
        if name in problem.remove:
            if name in packs:
                yield f"{name} was to be removed"
            continue
        pack = packs.get(name)
        if record.held and (pack is None or not same(problem, pack)):
            yield f"{name} is held"
        elif pack is None and not problem.exact:
            old = {name: record.candidate}
            gone = any(
                (c.line.name in asked or (problem.removable and opted_in(problem, c)))
                and _replaces(c, record.candidate)
                for c in packs.values()
            )
            conflict = any(
                [*rivals(c, old), *(r for r in rivals(record.candidate, packs) if r is c)]
                for c in packs.values()
            )
            if not (gone or (problem.removable and conflict)):
                yield f"{name} went"
        elif pack is not None and not same(problem, pack):
            early = problem.prereleases
            if record.pin and not record.pin.admits(pack.version, prereleases=early):
                yield f"{name} is pinned"
            locked = problem.locked.get(name) == pack.line.manifest
            free = problem.requests or problem.exact or locked
            if not free and pack.version < record.candidate.version:
                yield f"{name} went down"


def _replaces(candidate: Candidate, old: Candidate) -> bool:
    text = candidate.line.replaces.get(old.line.name)
    return text is not None and Requirement(text).admits(old.version, prereleases=True)


def _eligible(problem: Problem, packs: Packs, candidate: Candidate) -> Iterator[str]:
    if same(problem, candidate):
        return
    line = candidate.line
    locked = problem.locked.get(line.name) == line.manifest
    if line.yanked and not locked:
        yield f"{line.name} is yanked"
    if line.base.fingerprint not in problem.bases:
        yield f"{line.name} has no base"
    if not opted_in(problem, candidate):
        # then it is there only because everything that wants it names it
        asked = {r.name for r in problem.requests} | (problem.installed.keys() - problem.remove)
        wants = [c.line.requires | c.line.recommends for c in packs.values()]
        if line.name in asked or not any(line.name in w for w in wants):
            yield f"{line.name} is a pre-release"


def _together(problem: Problem, packs: Packs) -> Iterator[str]:
    before = {n: i.candidate for n, i in problem.installed.items()}
    for pack in packs.values():
        for name, text in pack.line.requires.items():
            if name == pack.line.name or meets(problem, packs, name, text):
                continue
            if same(problem, pack) and not problem.exact and not meets(problem, before, name, text):
                continue
            yield f"{pack.line.name} lacks {name} {text}"
        for rival in rivals(pack, packs):
            if not (same(problem, pack) and same(problem, rival)) or problem.exact:
                yield f"{pack.line.name} conflicts with {rival.line.name}"
    for one, other in itertools.combinations(packs.values(), 2):
        a, b = one.line.base.fingerprint, other.line.base.fingerprint
        shared = problem.bases.get(a, one.line.base.name) == problem.bases.get(
            b, other.line.base.name
        )
        old = same(problem, one) and same(problem, other) and not problem.exact
        if a != b and shared and not old:
            yield f"{one.line.name} and {other.line.name} have two bases of one name"


def needed(problem: Problem, packs: Packs) -> bool:
    """Whether every pack is asked for, installed or required by such a one."""
    seen = {n for n in packs if n in problem.installed or n in {r.name for r in problem.requests}}
    queue = list(seen)
    while queue:
        for name, text in packs[queue.pop()].line.requires.items():
            for other in packs.values():
                meant = other.line.name == name or (text == "*" and name in standing(other))
                if meant and other.line.name not in seen:
                    seen.add(other.line.name)
                    queue.append(other.line.name)
    return seen == packs.keys()


def every_choice(problem: Problem, offers: list[Candidate]) -> Iterator[dict[str, Candidate]]:
    """Every set of packs, good or bad."""
    domains: dict[str, dict[str, Candidate]] = {}
    for candidate in (*(i.candidate for i in problem.installed.values()), *offers):
        domains.setdefault(candidate.line.name, {})[candidate.line.manifest] = candidate
    choices = [[None, *versions.values()] for versions in domains.values()]
    for picked in itertools.product(*choices):
        yield {c.line.name: c for c in picked if c is not None}
