"""`mbpm pin`: keep packs within a range of versions."""

from __future__ import annotations

from typing import Annotated

import typer

from mbpm.options import DryRun, complete_installed
from specs.errors import UsageError


def command(
    ctx: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME@REQUIREMENT",
            help="Such as `medical@~1.2` or `legal@<3`",
            autocompletion=complete_installed,
        ),
    ],
    dry_run: DryRun = False,
) -> None:
    """Keep installed packs within a range of versions, until `mbpm unpin`.

    Nothing is changed now; upgrades stay within the range.

    $ mbpm pin medical@~1.2
    """
    from mbpm.change.marks import update_each
    from specs.names import check_name
    from specs.versions import Requirement

    changes = {}
    for target in targets:
        name, _, text = target.partition("@")
        try:
            check_name(name)
            requirement = Requirement(text)
        except ValueError as error:
            hint = f"`mbpm pin {name or 'NAME'}@~1.2`"
            raise UsageError(f"`{target}`: {error}", hint=hint) from None
        changes[name] = ({"pin": requirement.text}, f"pinned to {requirement}")
    update_each(ctx.obj, changes, dry_run=dry_run)
