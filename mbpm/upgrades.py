"""Which installed packs have something newer, and why it is not taken where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specs.errors import NotFoundError

if TYPE_CHECKING:
    from mbpm.catalogue import Catalogue
    from mbpm.state import State
    from specs.generation import InstalledPack
    from specs.index_line import IndexLine


@dataclass(frozen=True)
class Outdated:
    """An installed pack of which there is a newer version."""

    record: InstalledPack
    line: IndexLine | None
    """The installed version, as its registry has it; None where it is in none."""
    candidate: IndexLine | None
    """What `mbpm upgrade` would take; None where it would leave the pack as it is."""
    newest: str
    """The newest version there is."""
    kept_back: str
    """Why the candidate is not the newest; empty where it is."""
    notes: str
    """What is new, as the candidate says, or else the newest version."""


def outdated(
    state: State,
    names: Sequence[str],
    registries: Sequence[str] | None = None,
    *,
    prereleases: bool = False,
) -> list[Outdated]:
    """The installed packs called `names`, or all, that have something newer; by name.

    Raises:
        NotFoundError: one of them is not installed.
        MbpmError: as `mbpm upgrade` would.
    """
    from mbpm.change.install import Goal, prepare
    from mbpm.resolver import Request
    from mbpm.verify import installed_packs

    records = {p.name: p for p in installed_packs(state.home, names)}
    if not records:
        return []
    catalogue = state.catalogue(registries)
    goal = Goal(
        tuple(Request(n) for n in dict.fromkeys(names)),
        upgrade=frozenset(records),
        keep_marks=True,
        prereleases=prereleases,
    )
    plan = prepare(state.home, goal, catalogue).plan
    taken = {p.name: p.line for p in plan.packs if p.action == "upgrade" and p.line}
    kept = {k.name: k for k in plan.kept_back}
    found = []
    for name, record in sorted(records.items()):
        lines = lines_of(state, record, catalogue)
        if name not in taken and name not in kept:
            continue
        candidate = taken.get(name)
        newest = kept[name].newest if name in kept else candidate.version if candidate else ""
        told = candidate or next((x for x in lines if x.version == newest), None)
        found.append(
            Outdated(
                record,
                next((x for x in lines if x.manifest == record.manifest), None),
                candidate,
                newest,
                kept[name].reason if name in kept else "",
                told.notes if told is not None else "",
            )
        )
    return found


def lines_of(state: State, record: InstalledPack, catalogue: Catalogue) -> list[IndexLine]:
    """The versions there are of an installed pack; says so where nobody can tell."""
    from mbpm.registries.origins import LOCAL

    try:
        return [c.line for c in catalogue.candidates(record.name)]
    except NotFoundError as error:
        if not record.registry.startswith(LOCAL):
            state.out.warn(error.message)
        return []
