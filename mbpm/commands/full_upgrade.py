"""`mbpm full-upgrade`: newer versions, whatever is in the way."""

from __future__ import annotations

import typer

from mbpm.commands.upgrade import upgrade
from mbpm.options import AllOrNames, DryRun, NoRecommends, Prereleases, Registries, Yes


def command(
    ctx: typer.Context,
    names: AllOrNames = None,
    registry: Registries = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    no_recommends: NoRecommends = False,
    pre: Prereleases = False,
) -> None:
    """Upgrade packs as `mbpm upgrade` does, and remove installed packs that are in the way.

    This is what a renamed pack needs: the new one takes the place of the old one.

    $ mbpm full-upgrade
    $ mbpm full-upgrade law --dry-run
    """
    upgrade(
        ctx.obj,
        names or [],
        registry,
        yes=yes,
        dry_run=dry_run,
        recommends=not no_recommends,
        prereleases=pre,
        removable=True,
    )
