"""`mbpm reinstall`: check packs byte for byte, and fetch what is damaged."""

from __future__ import annotations

import typer

from mbpm.options import DryRun, InstalledNames, Registries, Yes


def command(
    ctx: typer.Context,
    names: InstalledNames,
    registry: Registries = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Check every byte of installed packs and fetch again what is damaged, at the same version.

    Good parts of a damaged file are kept: only the bad ones are fetched.

    $ mbpm reinstall medical
    """
    from mbpm.commands.repair import repair

    repair(ctx.obj, names, registry, bases=False, yes=yes, dry_run=dry_run)
