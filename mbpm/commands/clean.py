"""`mbpm clean`: drop what can be fetched or made again."""

from __future__ import annotations

from typing import Annotated

import typer

from mbpm.options import DryRun, Yes
from mbpm.state import State


def command(
    ctx: typer.Context,
    partial: Annotated[bool, typer.Option("--partial", help="Only unfinished downloads")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Drop unfinished downloads, the copies of registries' indexes, packed weights and tokenizers.

    Nothing that is installed is touched. What another process is fetching right now stays.
    `mbpm gc` frees what was installed once.

    $ mbpm clean --dry-run
    $ mbpm clean --partial --yes
    """
    from mbpm.commands.gc import rows, show
    from mbpm.garbage import cached, free, interrupted
    from mbpm.output import size
    from mbpm.transaction import writer

    state: State = ctx.obj
    home, out = state.home, state.out
    found = cached(home, indexes=not partial)
    show(out, found)
    freed = 0
    if found and not dry_run:
        out.confirm("Drop it?", yes=yes)
        with writer(home, out, state.command_line) as right:
            found = cached(home, indexes=not partial)
            free(right, found)
        freed = sum(w.size for w in found)
        out.note(f"freed {size(freed)}")
    elif interrupted(home) and not dry_run:
        with writer(home, out, state.command_line):
            pass
    out.result({"found": rows(found), "freed_bytes": freed})
