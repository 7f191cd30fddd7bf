"""`mbpm history`: what was changed, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbpm.state import State

if TYPE_CHECKING:
    from mbpm.history import Difference
    from specs.generation import Generation


def command(
    ctx: typer.Context,
    number: Annotated[
        int | None, typer.Argument(metavar="GENERATION", help="Show one of them in full", min=0)
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", metavar="N", help="Only the newest N", min=1)
    ] = None,
) -> None:
    """List what was changed and when, newest first.

    Every change makes a generation: a numbered, complete state of what is installed. `mbpm undo`
    takes the last change back, and `mbpm rollback N` goes back to generation N.

    With a number: the command that made that generation, what it changed, and what was installed
    then.

    $ mbpm history
    $ mbpm history 12
    """
    from mbpm.history import differences

    state: State = ctx.obj
    home = state.home
    current = home.current()
    if number is not None:
        _one(state, number, current)
        return
    rows = []
    newer: Generation | None = None
    for generation in home.generations():
        if newer is not None:
            rows.append(_row(newer, differences(generation, newer), current))
        newer = generation
        if limit is not None and len(rows) >= limit:
            newer = None
            break
    if newer is not None:
        rows.append(_row(newer, differences(_before(state, newer), newer), current))
    state.out.result({"profile": home.profile, "current": current.number, "generations": rows})
    if not rows:
        state.out.note("nothing was ever changed")
        return
    state.out.table(
        ["", "GENERATION", "WHEN", "WHAT", "COMMAND"],
        [
            [
                "*" if row["current"] else "",
                str(row["number"]),
                row["created"].replace("T", " ").removesuffix("Z"),
                _short([c["words"] for c in row["changes"]]),
                row["command"],
            ]
            for row in rows
        ],
    )


def _short(words: list[str]) -> str:
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    return ", ".join(words[:3]) + more if words else "nothing"


def _before(state: State, generation: Generation) -> Generation:
    """The generation before, or an empty one where it is not kept."""
    from specs.errors import IntegrityError, NotFoundError

    try:
        return state.home.generation(generation.number - 1)
    except (NotFoundError, IntegrityError):
        return state.home.generation(0)


def _row(generation: Generation, changes: list[Difference], current: Generation) -> dict[str, Any]:
    return {
        "number": generation.number,
        "created": generation.created,
        "command": generation.command,
        "cause": generation.cause,
        "restores": generation.restores,
        "current": generation.number == current.number,
        "changes": [
            {"kind": c.kind, "name": c.name, "old": c.old, "new": c.new, "words": str(c)}
            for c in changes
        ],
    }


def _one(state: State, number: int, current: Generation) -> None:
    from mbpm.history import differences
    from mbpm.registries.config import display_names

    out = state.out
    generation = state.home.past(number)
    before = _before(state, generation) if number else generation
    row = _row(generation, differences(before, generation), current)
    out.result({**row, **generation.model_dump(mode="json", include={"packs", "bases"})})
    out.line(f"generation {number}" + (", the current one" if row["current"] else ""))
    if number == 0:
        out.line("nothing was installed yet")
        return
    out.line()
    out.line(f"when     {generation.created}")
    out.line(f"command  {generation.command}")
    if generation.restores is not None:
        out.line(f"{generation.cause:<9}to what generation {generation.restores} held")
    for change in row["changes"]:
        out.line(f"change   {change['words']}")
    names = display_names(state.home.path, [p.registry for p in generation.packs])
    for pack in generation.packs:
        out.line(f"pack     {pack.name} {pack.version} from {names[pack.registry]}")
    for base in generation.bases:
        out.line(f"base     {base.name} ({base.fingerprint[:12]})")
