"""`mbpm list`: what is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.state import State
from specs.errors import UsageError

if TYPE_CHECKING:
    from specs.generation import InstalledPack


def command(
    ctx: typer.Context,
    auto: Annotated[
        bool, typer.Option("--auto", help="Only packs that came because others need them")
    ] = False,
    manual: Annotated[
        bool, typer.Option("--manual", help="Only packs that were asked for")
    ] = False,
    held: Annotated[
        bool, typer.Option("--held", help="Only packs that are held at their version")
    ] = False,
    upgradable: Annotated[
        bool, typer.Option("--upgradable", help="Only packs that `mbpm upgrade` would change")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Unfinished downloads instead, with size and age")
    ] = False,
) -> None:
    """List the installed packs: version, base, where they came from, and what is marked of them.

    Marks are `auto` (there only because others need it), `held`, and the range of a pin. A
    registry is shown by the name `mbpm registry add` gave it. Several options narrow the list down
    together. `mbpm outdated` tells more of what can be upgraded, and `mbpm base list` lists bases.

    $ mbpm list --manual
    $ mbpm list --upgradable --json
    """
    state: State = ctx.obj
    if partial and (auto or manual or held or upgradable):
        raise UsageError(
            "`--partial` lists downloads, and the other options packs",
            hint="give it alone: `mbpm list --partial`",
        )
    if auto and manual:
        raise UsageError("every pack is either automatic or asked for", hint="give one of the two")
    if partial:
        _list_downloads(state)
        return
    generation = state.home.current()
    newer = _candidates(state) if upgradable else {}
    packs = [
        p
        for p in generation.packs
        if (p.auto or not auto)
        and not (p.auto and manual)
        and (p.held or not held)
        and (p.name in newer or not upgradable)
    ]
    filtered = auto or manual or held or upgradable
    bases = () if filtered else generation.bases
    state.out.result(
        {
            "generation": generation.number,
            "packs": [p.model_dump(mode="json") for p in packs],
            "bases": [b.model_dump(mode="json") for b in bases],
            **({"candidates": {p.name: newer[p.name] for p in packs}} if upgradable else {}),
        }
    )
    if packs:
        _print(state, packs, newer)
    elif generation.packs:
        state.out.note("no installed pack is like that")
    else:
        state.out.note("no packs are installed")
        if state.out.mode == "human":
            state.out.hint("`mbpm search` lists the packs there are")


def _print(state: State, packs: Sequence[InstalledPack], newer: dict[str, str]) -> None:
    from mbpm.registries.config import display_names

    origin = display_names(state.home.path, [p.registry for p in packs])
    columns: list[tuple[str, Callable[[InstalledPack], str]]] = [
        ("NAME", lambda p: p.name),
        ("VERSION", lambda p: p.version),
        ("BASE", lambda p: p.base),
        ("FROM", lambda p: origin[p.registry]),
    ]
    if newer:
        columns.insert(2, ("CANDIDATE", lambda p: newer[p.name]))
    if any(_marks(p) for p in packs):
        columns.append(("MARKS", _marks))
    state.out.table([c for c, _ in columns], [[show(p) for _, show in columns] for p in packs])


def _marks(pack: InstalledPack) -> str:
    marks = ["auto"] * pack.auto + ["held"] * pack.held
    return ", ".join(marks + ([f"pin {pack.pin}"] if pack.pin else []))


def _candidates(state: State) -> dict[str, str]:
    """Name -> version, of what `mbpm upgrade` would change."""
    from mbpm.upgrades import outdated

    return {o.record.name: o.candidate.version for o in outdated(state, ()) if o.candidate}


def _list_downloads(state: State) -> None:
    from mbpm.output import size
    from mbpm.unfinished import downloads

    out = state.out
    found = downloads(state.home)
    out.result(
        {
            "partial": [
                {
                    "path": str(d.path),
                    "key": d.key,
                    "what": d.what or None,
                    "size": d.size,
                    "idle_seconds": round(d.idle_seconds),
                    "busy": d.busy,
                }
                for d in found
            ]
        }
    )
    if not found:
        out.note("there are no unfinished downloads")
        return
    out.table(
        ["FILE", "SIZE", "IDLE", "STATE", "FOR"],
        [
            [
                d.key[:16] if len(d.key) == 64 else d.key,
                size(d.size),
                _age(d.idle_seconds),
                "being fetched" if d.busy else "waiting",
                d.what or "-",
            ]
            for d in found
        ],
    )
    if out.mode == "human":
        out.hint("the same command as before goes on where it was stopped; `mbpm clean` drops them")


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
