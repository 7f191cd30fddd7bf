"""What would resolve a failure: changes that are tried, and offered only where they work."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from mbpm.hardware import OVERRIDE
from mbpm.resolver.decide import choose
from mbpm.resolver.option import Option, requirement
from mbpm.resolver.options import Options
from mbpm.resolver.problem import Problem, Request
from mbpm.resolver.refute import Fall, Refutation
from mbpm.resolver.sentences import message
from specs.errors import IntegrityError, MbpmError, ResolutionError
from specs.names import HARDWARE
from specs.versions import Requirement, Version

MAX_TRIES = 16


@dataclass(frozen=True)
class Change:
    """One thing somebody could do about a failure."""

    words: str
    """What to do; `{version}` stands for the version of `name` that it leads to."""
    problem: Problem
    """The problem as it would be then."""
    name: str = ""


def failure(options: Options, proof: Refutation) -> MbpmError:
    """The error for a problem without a solution."""
    text = message(options, proof)
    if _only_base(options, proof):
        return IntegrityError(text, hint="`mbpm base list` shows the bases there are")
    return ResolutionError(text, hint=_hint(options, proof))


def _hint(options: Options, proof: Refutation) -> str:
    for tries, change in enumerate(_changes(options, proof)):
        if tries >= MAX_TRIES:
            break
        found = _works(options, change.problem)
        if found is not None:
            version = str(found[change.name].version) if change.name in found else ""
            return change.words.format(version=version)
    missing = options.shelf.missing
    for request in options.problem.requests:
        for name in request.pinned.line.requires if request.pinned is not None else ():
            # whoever has the folder can correct a name in it
            if name in missing and name in proof.domains:
                return missing[name].hint or f"`mbpm search {name}` looks for it"
    if proof.name in missing:
        return f"`--registry` names a registry that has `{proof.name}`"
    asked = [w.key for w in proof.wants if w.kind == "ask"]
    name = proof.name if options.packs(proof.name) or not asked else asked[0]
    return f"`mbpm show {name}` lists its versions"


def _works(options: Options, problem: Problem) -> Mapping[str, Option] | None:
    """What would be installed, where a varied problem has a solution."""
    try:
        found = choose(Options(problem, options.shelf))
    except ResolutionError:
        return None
    return found if isinstance(found, dict) else None


def _every(falls: tuple[Fall, ...]) -> Iterator[Fall]:
    for fall in falls:
        yield fall
        yield from _every(fall.inner)


def _excluded(proof: Refutation, kind: str) -> list[Option]:
    """Versions that fall for this reason, and matter."""
    falls = (f.option for f in _every(proof.falls) if f.why == "excluded")
    return [o for o in falls if o.excluded is not None and o.excluded.kind == kind]


def _names(found: list[Option]) -> list[str]:
    return list(dict.fromkeys(o.name for o in found))


def _prereleases(proof: Refutation) -> list[Option]:
    """Pre-releases that fall, and matter."""
    falls = (f.option for f in _every(proof.falls) if f.option.candidate is not None)
    return [o for o in falls if o.version.prerelease and not o.excluded]


def _only_base(options: Options, proof: Refutation) -> bool:
    """Whether it would fit if the bases the packs were made for could be had."""
    foreign = _excluded(proof, "base")
    others = ("held", "pinned", "yanked", "hardware")
    if not foreign or _prereleases(proof) or any(_excluded(proof, k) for k in others):
        return False
    bases = dict(options.problem.bases)
    for option in foreign:
        assert option.candidate is not None
        base = option.candidate.line.base
        bases.setdefault(base.fingerprint, base.name)
    return _works(options, replace(options.problem, bases=bases)) is not None


def _changes(options: Options, proof: Refutation) -> Iterator[Change]:
    """Single changes that may help, the least first."""
    problem = options.problem
    for name in _names(_excluded(proof, "held")):
        record = replace(problem.installed[name], held=False)
        installed = {**problem.installed, name: record}
        yield Change(f"`mbpm unhold {name}` lets it change", replace(problem, installed=installed))
    for name in _names(_excluded(proof, "pinned")):
        record = replace(problem.installed[name], pin=None)
        installed = {**problem.installed, name: record}
        yield Change(f"`mbpm unpin {name}` lets it change", replace(problem, installed=installed))
    yield from _other_versions(options, proof)
    if _prereleases(proof):
        yield Change("`--pre` lets pre-releases in", replace(problem, prereleases=True))
    yield from _replacements(options, proof)
    for want in proof.wants:
        if want.kind == "keep":
            removed = replace(problem, remove=problem.remove | {want.key})
            yield Change(f"`mbpm remove {want.key}` makes room", removed)
    yield from _better_machine(options, proof)
    for name in dict.fromkeys(w.key for w in proof.wants if w.kind == "ask"):
        fewer = tuple(r for r in problem.requests if r.name != name)
        if fewer:
            yield Change(f"leave out `{name}`", replace(problem, requests=fewer))


def _other_versions(options: Options, proof: Refutation) -> Iterator[Change]:
    """Asking for another version of a pack that is asked for."""
    problem = options.problem
    early = {o.name: o for o in reversed(_prereleases(proof))}
    for name in dict.fromkeys(w.key for w in proof.wants if w.kind == "ask"):
        rest = tuple(r for r in problem.requests if r.name != name)
        own = [r for r in problem.requests if r.name == name]
        if any(r.pinned is not None for r in own):
            continue
        for request in own if len(own) > 1 else ():
            words = f"ask for `{name} {request.requirement or '*'}` alone"
            yield Change(words, replace(problem, requests=(*rest, request)))
        free = (*rest, Request(name))
        if any(r.requirement is not None for r in own):
            words = f"ask for `{name}@={{version}}`"
            newest = problem.upgrade | {name}
            yield Change(words, replace(problem, requests=free, upgrade=newest), name)
        if name in early:
            version = early[name].version
            exact = Request(name, Requirement(f"={version.text.partition('+')[0]}"))
            words = f"ask for `{name}@{exact.requirement}`, or give `--pre`"
            yield Change(words, replace(problem, requests=(*rest, exact)))


def _replacements(options: Options, proof: Refutation) -> Iterator[Change]:
    """Asking by name for a pack that takes the place of an installed one."""
    problem = options.problem
    for fall in _every(proof.falls):
        for other in fall.left:
            clash = options.clash(fall.option, other)
            if (
                clash is not None
                and clash.kind == "replaces"
                and clash.by.name not in options.asked
            ):
                more = (*problem.requests, Request(clash.by.name))
                words = f"name `{clash.by.name}` too, which takes the place of {clash.name}"
                yield Change(words, replace(problem, requests=more))


def _better_machine(options: Options, proof: Refutation) -> Iterator[Change]:
    """Saying that the machine has what a version needs."""
    problem = options.problem
    for option in _excluded(proof, "hardware"):
        assert option.candidate is not None
        there, settings = dict(problem.hardware), []
        for name, text in option.candidate.line.requires.items():
            if name in HARDWARE and not _has(there.get(name), text):
                least = re.search(r"\d+(\.\d+)*", text)
                if least is None:
                    break
                parts = [*least[0].split("."), "0", "0"]
                there[name] = Version(".".join(parts[:3]))
                settings.append(f"{OVERRIDE}{name.removeprefix('__').upper()}={least[0]}")
        words = f"`{' '.join(settings)}` installs it anyway"
        yield Change(words, replace(problem, hardware=there))


def _has(version: Version | None, text: str) -> bool:
    return version is not None and requirement(text).admits(version)
