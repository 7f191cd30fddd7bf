"""`mbpm rollback`: back to an earlier generation."""

from __future__ import annotations

from typing import Annotated

import typer

from mbpm.options import DryRun, Yes
from mbpm.state import State


def command(
    ctx: typer.Context,
    number: Annotated[
        int,
        typer.Argument(metavar="GENERATION", help="A number of `mbpm history`; 0: nothing", min=0),
    ],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Make what was installed in an earlier generation what is installed now.

    This makes a new generation with the same content, so that nothing of the history is lost and
    `mbpm undo` takes it back. mbpm itself is not changed.

    $ mbpm rollback 12 --dry-run
    """
    from mbpm.change.run import restore

    state: State = ctx.obj
    restore(
        state,
        state.home.past(number),
        cause="rollback",
        restores=number,
        yes=yes,
        dry_run=dry_run,
    )
