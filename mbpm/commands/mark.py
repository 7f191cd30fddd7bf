"""`mbpm mark`: wanted, or only needed by others."""

from __future__ import annotations

from typing import Annotated

import typer

from mbpm.options import DryRun, InstalledNames
from specs.errors import UsageError


def command(
    ctx: typer.Context,
    mark: Annotated[str, typer.Argument(metavar="MARK", help="`manual` or `auto`")],
    names: InstalledNames,
    dry_run: DryRun = False,
) -> None:
    """Mark packs as wanted themselves (`manual`) or as there for others only (`auto`).

    `mbpm autoremove` takes out automatic packs that nothing needs any more.

    $ mbpm mark manual words
    """
    from mbpm.change.marks import update

    if mark not in ("auto", "manual"):
        raise UsageError(
            f"`{mark}` is no mark", hint="`mbpm mark manual NAME` or `mbpm mark auto NAME`"
        )
    words = "there for others only" if mark == "auto" else "wanted itself"
    update(ctx.obj, names, {"auto": mark == "auto"}, words, dry_run=dry_run)
