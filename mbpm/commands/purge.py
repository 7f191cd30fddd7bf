"""`mbpm purge`: remove packs and every byte of them."""

from __future__ import annotations

from typing import Annotated

import typer

from mbpm.options import DryRun, Yes, complete_installed
from mbpm.state import State


def command(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="Packs, installed now or earlier",
            autocompletion=complete_installed,
        ),
    ],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Remove packs and free their disk at once, older versions included.

    `mbpm undo` has to fetch them again. What another profile has installed stays there.

    $ mbpm purge legal
    """
    from mbpm.change import carry_out
    from mbpm.change.removal import prepare_removal, suggest_autoremove

    state: State = ctx.obj
    carry_out(
        state, lambda: prepare_removal(state.home, names, purge=True), yes=yes, dry_run=dry_run
    )
    if not dry_run:
        suggest_autoremove(state)
