"""`mbpm unhold`: the end of a hold."""

from __future__ import annotations

from typing import Annotated

import typer

from mbpm.options import DryRun, complete_installed


def command(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Held packs", autocompletion=complete_installed),
    ],
    dry_run: DryRun = False,
) -> None:
    """Let held packs be upgraded again.

    $ mbpm unhold medical
    """
    from mbpm.change.marks import update

    update(ctx.obj, names, {"held": False}, "no longer held", dry_run=dry_run)
