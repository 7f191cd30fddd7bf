"""`mbpm repair`: mend whatever is damaged."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from mbpm.options import DryRun, Registries, Yes
from mbpm.state import State


def command(
    ctx: typer.Context, registry: Registries = None, yes: Yes = False, dry_run: DryRun = False
) -> None:
    """Check every byte of everything installed, packs and bases, and mend what is damaged.

    Good parts of a damaged file are kept: only the bad ones are fetched.

    $ mbpm repair --dry-run
    """
    repair(ctx.obj, [], registry, bases=True, yes=yes, dry_run=dry_run)


def repair(
    state: State,
    names: Sequence[str],
    registry: Sequence[str] | None,
    *,
    bases: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    """Shared with `mbpm reinstall`."""
    from mbpm.change import carry_out
    from mbpm.change.install import prepare_repair
    from mbpm.verify import installed_packs

    packs = installed_packs(state.home, names)
    catalogue = state.catalogue(registry)
    carry_out(
        state,
        lambda: prepare_repair(state.home, packs, catalogue, bases=bases),
        yes=yes,
        dry_run=dry_run,
        idle="every byte is right" if packs or bases else "nothing is installed",
    )
