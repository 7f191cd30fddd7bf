"""`mbpm redo`: what `mbpm undo` took back is made again."""

from __future__ import annotations

import typer

from mbpm.commands.undo import step
from mbpm.options import DryRun, Yes


def command(ctx: typer.Context, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Make the change again that `mbpm undo` took back last.

    After any other change there is nothing to make again.

    $ mbpm redo
    """
    step(ctx.obj, "redo", yes=yes, dry_run=dry_run)
