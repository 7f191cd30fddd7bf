"""`mbpm undo` and `mbpm redo`: the last change taken back, and made again."""

from __future__ import annotations

from typing import Literal

import typer

from mbpm.options import DryRun, Yes
from mbpm.state import State
from specs.errors import NotFoundError


def command(ctx: typer.Context, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Take the last change back: what is installed becomes what it was before.

    Packs, bases, holds, pins and marks. Again and again, it goes further back; `mbpm redo` comes
    forward. Nothing is fetched unless `mbpm gc` or `mbpm purge` freed it.

    $ mbpm undo --dry-run
    """
    step(ctx.obj, "undo", yes=yes, dry_run=dry_run)


def step(state: State, cause: Literal["undo", "redo"], *, yes: bool, dry_run: bool) -> None:
    """Shared with `mbpm redo`."""
    from mbpm.change.run import restore
    from mbpm.history import position

    generations = list(state.home.generations())
    found = position(generations[::-1])
    number = found.undo if cause == "undo" else found.redo
    if number is None:
        raise NotFoundError(
            "there is no change to take back"
            if cause == "undo"
            else "there is no change that was taken back",
            hint="`mbpm history` lists what was changed",
        )
    restore(
        state,
        state.home.generation(number),
        cause=cause,
        restores=number,
        yes=yes,
        dry_run=dry_run,
        since=generations[0].number,
    )
