"""From what a project wants to exact versions. Nothing that is installed has a say in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbpm.project.shelf import Shelf
from specs.errors import ResolutionError
from specs.lockfile import LOCK_FILE, Lock, LockedBase, LockedPack
from specs.project import PROJECT_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from mbpm.resolver import Solution
    from mbpm.state import State
    from specs.project import Project
    from specs.versions import Requirement, Version


@dataclass(frozen=True)
class Locked:
    """What was found for a project."""

    packs: tuple[LockedPack, ...]
    bases: tuple[LockedBase, ...]
    remarks: tuple[str, ...]
    """What to warn of: yanked versions, recommended packs that cannot be had."""

    def lock(self, project: Project) -> Lock:
        """The lock of a project whose wants they meet."""
        return Lock(wants=project.wants(), bases=self.bases, packs=self.packs)

    def pack(self, name: str) -> LockedPack:
        """A pack the project wants."""
        return next(p for p in self.packs if p.name == name)


def find_versions(
    state: State,
    folder: Path,
    project: Project,
    old: Lock | None,
    *,
    upgrade: Mapping[str, Requirement | None] | None = None,
) -> Locked:
    """Choose versions for what a project wants.

    Args:
        state: The command.
        folder: Of the project.
        project: Its wants.
        old: The lock from before; what it has is preferred.
        upgrade: Packs for which it is not, and of some of them which versions to have.

    Raises:
        NotFoundError: a pack, base or registry that is wanted does not exist.
        ResolutionError: nothing fits, and why.
        MbpmError: as registries do.
    """
    from mbpm.resolver import Problem, Request, resolve
    from specs.versions import Requirement

    shelf = Shelf(state, folder, project, old)
    upgrade = upgrade or {}
    locked = {p.name: p.manifest for p in old.packs if p.name not in upgrade} if old else {}
    exact = {name: wanted for name, wanted in upgrade.items() if wanted is not None}
    early = project.project.prereleases
    locked |= {name: _newest(name, wanted, shelf, early) for name, wanted in exact.items()}
    problem = Problem(
        requests=tuple(Request(n, Requirement(w.version)) for n, w in project.packs.items()),
        installed={},
        lookup=shelf.candidates,
        providers=shelf.catalogue.providers,
        bases={f: o.card.name for f, o in shelf.bases.items()},
        hardware=_machine(project),
        exact=True,
        recommends=project.project.recommends,
        prereleases=early,
        locked=locked,
    )
    shelf.catalogue.prefetch([*project.packs, *locked])
    try:
        solution = resolve(problem)
    except ResolutionError:
        if shelf.base is None:
            raise
        # so that the message is about the other base, and not about versions that are not there
        shelf.any_base = True
        solution = resolve(problem)
    _check_exact(exact, solution, project)
    packs, bases = [], {}
    if shelf.base is not None:
        bases[shelf.base.card.name] = shelf.base_entry(shelf.base)
    for name, candidate in solution.packs.items():
        offer = shelf.base_of(candidate)
        packs.append(shelf.entry(candidate, offer.card.name, auto=name not in project.packs))
        bases[offer.card.name] = shelf.base_entry(offer)
    return Locked(tuple(packs), tuple(bases.values()), tuple(_remarks(solution)))


def _newest(name: str, wanted: Requirement, shelf: Shelf, early: bool) -> str:
    """The manifest of the newest version of a pack that fits."""
    there = shelf.candidates(name)
    able = [c for c in there if not c.line.yanked]
    fitting = [c for c in able if wanted.admits(c.version, prereleases=early)]
    if not fitting:
        raise ResolutionError(
            f"no version of {name} is `{wanted}`",
            hint=f"there is {name} {', '.join(c.line.version for c in there)}",
        )
    return max(fitting, key=lambda c: c.version).line.manifest


def _check_exact(exact: Mapping[str, Requirement], solution: Solution, project: Project) -> None:
    """What was chosen is what was asked for, where the project and other packs let it."""
    for name, wanted in exact.items():
        chosen = solution.packs.get(name)
        if chosen is None:
            raise ResolutionError(f"nothing needs {name} any more", hint="`mbpm lock` drops it")
        if wanted.admits(chosen.version, prereleases=project.project.prereleases):
            continue
        own = project.packs.get(name)
        why = f"`{name} {own.version}`, which {PROJECT_FILE} wants" if own else "the other packs"
        raise ResolutionError(
            f"`{name} {wanted}` does not go with {why}",
            hint=f"`mbpm add {name}@{wanted}` changes {PROJECT_FILE}, or tells what is in the way",
        )


def _machine(project: Project) -> Mapping[str, Version]:
    from mbpm.hardware import OVERRIDE, detect

    least = project.machine.model_dump(exclude_none=True)
    return detect({f"{OVERRIDE}{k.upper()}": v for k, v in least.items()} | dict(os.environ))


def _remarks(solution: Solution) -> list[str]:
    said = [
        f"{c.line.name} {c.line.version} is yanked; `mbpm lock --upgrade-pack {c.line.name}` "
        "looks for another version"
        for c in solution.packs.values()
        if c.line.yanked
    ]
    said += [
        f"{name} is recommended and left out: {why}" for name, why in solution.left_out.items()
    ]
    return said


def outdated(project: Project, lock: Lock | None) -> str | None:
    """What a lock does not have as the project wants it, in words; resolves nothing.

    Returns:
        None where the lock is the project's.
    """
    from specs.versions import Requirement, Version

    if lock is None:
        return f"there is no {LOCK_FILE}"
    for name, wanted in project.packs.items():
        pack = lock.pack(name)
        if pack is None or pack.auto:
            return f"{PROJECT_FILE} wants {name}, which {LOCK_FILE} does not have"
        version = Version(pack.version)
        if not Requirement(wanted.version).admits(version, prereleases=True):
            return f"{PROJECT_FILE} wants `{name} {wanted.version}`, and {LOCK_FILE} has {version}"
    for pack in lock.packs:
        if not pack.auto and pack.name not in project.packs:
            return f"{LOCK_FILE} has {pack.name}, which {PROJECT_FILE} does not want"
    if lock.wants != project.wants():
        return f"{PROJECT_FILE} was changed since {LOCK_FILE} was made"
    return None
