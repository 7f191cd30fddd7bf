"""`mbpm hold`: keep packs at the version they have."""

from __future__ import annotations

import typer

from mbpm.options import DryRun, InstalledNames


def command(
    ctx: typer.Context,
    names: InstalledNames,
    dry_run: DryRun = False,
) -> None:
    """Keep packs at the very version they have, until `mbpm unhold`.

    Upgrades say that they were kept back. `mbpm list --held` shows them.

    $ mbpm hold medical
    """
    from mbpm.change.marks import update

    update(ctx.obj, names, {"held": True}, "held", dry_run=dry_run)
