"""`mbpm remove`: packs that are no longer wanted."""

from __future__ import annotations

from typing import Annotated

import typer

from mbpm.options import DryRun, InstalledNames, Yes
from mbpm.state import State


def command(
    ctx: typer.Context,
    names: InstalledNames,
    autoremove: Annotated[
        bool, typer.Option("--autoremove", help="Also remove what nothing needs afterwards")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Remove packs. What another pack requires is not removed.

    Their bytes stay until `mbpm gc`, so that `mbpm undo` brings them back without a download;
    `mbpm purge` frees them at once.

    $ mbpm remove legal --autoremove
    """
    from mbpm.change import carry_out
    from mbpm.change.removal import prepare_removal, suggest_autoremove

    state: State = ctx.obj
    carry_out(
        state,
        lambda: prepare_removal(state.home, names, autoremove=autoremove),
        yes=yes,
        dry_run=dry_run,
    )
    if not dry_run:
        suggest_autoremove(state)
