"""`mbpm remove`: packs that are no longer wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from mbpm.state import State


def command(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Installed packs")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and change nothing")
    ] = False,
) -> None:
    """Remove packs and free their disk. What another pack requires is not removed."""
    run(ctx.obj, names, [], yes=yes, dry_run=dry_run)


def run(
    state: State, packs: Sequence[str], bases: Sequence[str], *, yes: bool, dry_run: bool
) -> None:
    """Show the removal, ask, and do it; shared with `mbpm base remove`."""
    from mbpm.plan import show
    from mbpm.removal import prepare_removal
    from mbpm.transaction import writer

    out = state.out
    removal = prepare_removal(state.home, packs, bases)
    show(removal.plan, out)
    document = {"plan": removal.plan.model_dump(mode="json")}
    if dry_run:
        out.result({**document, "changed": False, "generation": state.home.current().number})
        return
    out.confirm("Go ahead?", yes=yes)
    with writer(state.home, out, state.command_line) as right:
        removal = prepare_removal(state.home, packs, bases)
        generation = right.commit(removal.packs, removal.bases)
    for pack in removal.plan.packs:
        out.note(f"removed {pack.name} {pack.old}")
    for base in removal.plan.bases:
        out.note(f"removed base {base.name}")
    out.result({**document, "changed": True, "generation": generation.number})
