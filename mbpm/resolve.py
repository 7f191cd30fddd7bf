"""Which versions to install: pure, over candidates somebody else looked up.

The newest version wins that every requirement on it admits, that is not yanked and whose base can
be had; what is installed is preferred as long as it fits. There is no backtracking: a choice is
only revised when a requirement found later excludes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mbpm.catalogue import Candidate
from specs.errors import IntegrityError, NotFoundError, ResolutionError
from specs.versions import Requirement

MAX_ROUNDS = 200


@dataclass(frozen=True)
class Request:
    """What a command line asks for."""

    name: str
    requirement: Requirement | None = None
    pinned: Candidate | None = None
    """The one candidate, for a folder or an archive."""


@dataclass(frozen=True)
class _Demand:
    requirement: Requirement
    by: str


@dataclass
class _Round:
    """One pass from the requests through everything they require."""

    chosen: dict[str, Candidate] = field(default_factory=dict)
    demands: dict[str, list[_Demand]] = field(default_factory=dict)


def resolve(
    requests: Sequence[Request],
    installed: Mapping[str, Candidate],
    lookup: Callable[[str], list[Candidate]],
    bases: Iterable[str],
) -> dict[str, Candidate]:
    """Choose a version of every requested pack and of what it requires.

    Args:
        requests: What is asked for.
        installed: The installed packs by name; their own requirements must keep holding.
        lookup: Versions of a name, oldest first; raises NotFoundError.
        bases: Fingerprints of the bases that are installed or can be.

    Returns:
        Name -> candidate for the requested packs and their dependencies, installed ones included.

    Raises:
        NotFoundError: a requested pack does not exist.
        ResolutionError: nothing fits; the message says who requires what and why versions fell.
        IntegrityError: it would fit, but was made for a base that nobody offers.
    """
    known = frozenset(bases)
    demands: dict[str, list[_Demand]] = {}
    chosen: dict[str, Candidate] = {}
    for _ in range(MAX_ROUNDS):
        found = _walk(requests, installed, lookup, known, demands)
        if found.demands == demands and found.chosen == chosen:
            _check_conflicts({**installed, **chosen}, installed)
            return chosen
        demands, chosen = found.demands, found.chosen
    raise ResolutionError(
        "the requirements lead in circles", hint="ask for exact versions, as `NAME@=1.2.0`"
    )


def _walk(
    requests: Sequence[Request],
    installed: Mapping[str, Candidate],
    lookup: Callable[[str], list[Candidate]],
    bases: frozenset[str],
    demands: Mapping[str, list[_Demand]],
) -> _Round:
    """Choose under the demands of the round before, and collect the demands of the choices."""
    found = _Round()
    pinned = {r.name: r.pinned for r in requests if r.pinned is not None}
    for request in requests:
        if request.requirement is not None:
            demand = _Demand(request.requirement, "you")
            found.demands.setdefault(request.name, []).append(demand)
    for name, candidate in installed.items():
        if name not in demands and name not in {r.name for r in requests}:
            _collect(found, name, candidate)
    queue = [r.name for r in requests]
    while queue:
        name = queue.pop(0)
        if name in found.chosen:
            continue
        wanted = demands.get(name) or found.demands.get(name, [])
        candidate = _choose(name, wanted, installed.get(name), pinned.get(name), lookup, bases)
        found.chosen[name] = candidate
        _collect(found, name, candidate)
        provided = {
            p for c in (*found.chosen.values(), *installed.values()) for p in c.line.provides
        }
        queue += [n for n in candidate.line.requires if n not in provided]
    return found


def _collect(found: _Round, name: str, candidate: Candidate) -> None:
    for other, text in candidate.line.requires.items():
        demand = _Demand(Requirement(text), f"{name} {candidate.line.version}")
        found.demands.setdefault(other, []).append(demand)


def _choose(
    name: str,
    demands: Sequence[_Demand],
    installed: Candidate | None,
    pinned: Candidate | None,
    lookup: Callable[[str], list[Candidate]],
    bases: frozenset[str],
) -> Candidate:
    def admitted(candidate: Candidate) -> bool:
        return all(d.requirement.admits(candidate.version) for d in demands)

    if pinned is None and installed is not None and admitted(installed):
        return installed
    try:
        offers = [pinned] if pinned is not None else lookup(name)
    except NotFoundError:
        if not any(d.by != "you" for d in demands):
            raise
        raise ResolutionError(f"{_because(name, demands)}, and no registry has `{name}`") from None
    fallen = []
    wrong_base = None
    for candidate in sorted(offers, key=lambda c: c.version, reverse=True):
        line = candidate.line
        if not admitted(candidate):
            fallen.append(f"{line.version} is not what is required")
        elif line.yanked:
            fallen.append(f"{line.version} is yanked")
        elif candidate.version.prerelease and not demands and pinned is None:
            fallen.append(
                f"{line.version} is a pre-release (ask for it as `{name}@={line.version}`)"
            )
        elif line.base.fingerprint not in bases:
            wrong_base = line
            fallen.append(
                f"{line.version} was made for base {line.base.name} "
                f"({line.base.fingerprint[:12]}), which no registry offers"
            )
        else:
            return candidate
    reasons = "".join(f"\n  {text}" for text in fallen) or "\n  it has no versions"
    if wrong_base is not None and all("made for base" in text for text in fallen):
        raise IntegrityError(
            f"{name} {fallen[0]}", hint="`mbpm base list` shows the bases there are"
        )
    raise ResolutionError(
        f"no version of `{name}` fits{': ' + _because(name, demands) if demands else ''}{reasons}",
        hint=f"`mbpm show {name}` lists its versions",
    )


def _because(name: str, demands: Sequence[_Demand]) -> str:
    words = []
    for demand in demands:
        who = "you ask for" if demand.by == "you" else f"{demand.by} requires"
        words.append(f"{who} `{name} {demand.requirement}`")
    return " and ".join(words)


def _check_conflicts(packs: Mapping[str, Candidate], installed: Mapping[str, Candidate]) -> None:
    for name, candidate in packs.items():
        for other, text in candidate.line.conflicts.items():
            requirement = Requirement(text)
            for rival, against in packs.items():
                if rival == name:
                    continue
                if (rival == other and requirement.admits(against.version)) or (
                    other in against.line.provides
                ):
                    old = next((n for n in (rival, name) if n in installed), None)
                    raise ResolutionError(
                        f"{name} {candidate.line.version} conflicts with "
                        f"{rival} {against.line.version}",
                        hint=f"`mbpm remove {old}` makes room"
                        if old
                        else "only one of them can be installed",
                    )
