"""`mbpm autoremove`: what came along for others and nothing needs any more."""

from __future__ import annotations

import typer

from mbpm.options import DryRun, Yes
from mbpm.state import State


def command(ctx: typer.Context, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Remove packs and bases that came only because others needed them, and nothing needs now.

    `mbpm mark manual NAME` keeps one.

    $ mbpm autoremove --dry-run
    """
    from mbpm.change import carry_out
    from mbpm.change.removal import prepare_removal

    state: State = ctx.obj
    carry_out(
        state,
        lambda: prepare_removal(state.home, [], autoremove=True),
        yes=yes,
        dry_run=dry_run,
        idle="everything installed is wanted or needed",
    )
