"""`mbpm drop`: fewer packs for a project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.commands.add import NoSync
from mbpm.options import DryRun, ProjectFolder, Yes
from mbpm.state import State

if TYPE_CHECKING:
    from mbpm.project.files import Checkout
    from specs.errors import NotFoundError


def command(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Packs of the project")],
    no_sync: NoSync = False,
    project: ProjectFolder = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Take packs out of the project: out of mbpm.toml, out of mbpm.lock, and out of its profile.

    What only they needed goes with them; what another pack of the project needs stays.

    $ mbpm drop legal
    """
    from mbpm.project.files import open_project
    from mbpm.project.syncing import for_profile
    from mbpm.project.wanting import want

    state: State = ctx.obj
    checkout = open_project(project)
    for name in names:
        if name not in checkout.project.packs:
            raise _unknown(name, checkout)
    want(
        for_profile(state, checkout.project),
        checkout,
        drop=list(dict.fromkeys(names)),
        only_files=no_sync,
        yes=yes,
        dry_run=dry_run,
    )


def _unknown(name: str, checkout: Checkout) -> NotFoundError:
    import difflib

    from mbpm.project.files import shown
    from specs.errors import NotFoundError

    lock = checkout.lock()
    users = [p.name for p in lock.packs if name in p.requires] if lock is not None else []
    close = difflib.get_close_matches(name, checkout.project.packs, n=1)
    hint = f"did you mean `{close[0]}`?" if close else None
    if users:
        hint = f"it is there because {', '.join(users)} requires it"
    return NotFoundError(f"{shown(checkout.file)}: does not want a pack `{name}`", hint=hint)
