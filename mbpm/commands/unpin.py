"""`mbpm unpin`: the end of a pin."""

from __future__ import annotations

from typing import Annotated

import typer

from mbpm.options import DryRun, complete_installed


def command(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Pinned packs", autocompletion=complete_installed),
    ],
    dry_run: DryRun = False,
) -> None:
    """Let pinned packs have any version again.

    $ mbpm unpin medical
    """
    from mbpm.change.marks import update

    update(ctx.obj, names, {"pin": None}, "no longer pinned", dry_run=dry_run)
