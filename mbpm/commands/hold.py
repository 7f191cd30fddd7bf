"""`mbpm hold`: keep packs at the version they have."""

from __future__ import annotations

from typing import Annotated

import typer

from mbpm.options import DryRun


def command(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Installed packs")],
    dry_run: DryRun = False,
) -> None:
    """Keep packs at the very version they have, until `mbpm unhold`.

    Upgrades say that they were kept back. `mbpm list --held` shows them.

    $ mbpm hold medical
    """
    from mbpm.change.marks import update

    update(ctx.obj, names, {"held": True}, "held", dry_run=dry_run)
