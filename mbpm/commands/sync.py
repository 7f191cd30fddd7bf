"""`mbpm sync`: the project's packs, installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import DryRun, ProjectFolder, Yes
from mbpm.state import State

if TYPE_CHECKING:
    from mbpm.project.changes import Change
    from mbpm.project.files import Checkout
    from specs.lockfile import Lock


def command(
    ctx: typer.Context,
    locked: Annotated[
        bool, typer.Option("--locked", help="Fail if mbpm.lock is missing or out of date")
    ] = False,
    frozen: Annotated[
        bool,
        typer.Option("--frozen", help="Use mbpm.lock as it is, and look at no registry's index"),
    ] = False,
    registry: Annotated[
        list[str] | None,
        typer.Option(
            "--registry",
            metavar="REGISTRY",
            help="Another registry that may have what mbpm.lock names; may be repeated",
        ),
    ] = None,
    project: ProjectFolder = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Make the project's profile hold exactly what mbpm.lock says.

    What is missing is fetched by the digests of the lock, and what is not in it is removed. A lock
    that is missing or older than mbpm.toml is made first; `--locked` and `--frozen` never change
    it. The profile is called as the project, or as `profile` in mbpm.toml or `--profile` says, and
    nothing outside of it changes.

    $ mbpm sync
    $ mbpm sync --locked --yes
    """
    from mbpm.project import changes
    from mbpm.project.files import open_project
    from mbpm.project.syncing import for_profile, sync
    from specs.errors import UsageError

    state: State = ctx.obj
    if locked and frozen:
        raise UsageError(
            "`--locked` and `--frozen` cannot be together",
            hint="`--frozen` does all that `--locked` does, but look whether the lock is current",
        )
    checkout = open_project(project)
    state = for_profile(state, checkout.project)
    difference: list[Change] = []
    if locked or frozen:
        lock = _as_it_is(checkout, current=locked)
    else:
        lock, difference = _current(state, checkout, dry_run=dry_run)
    sync(
        state,
        checkout.folder,
        checkout.project,
        lock,
        frozen=frozen,
        yes=yes,
        dry_run=dry_run,
        registries=registry or (),
        more={"lock": {"changes": changes.document(difference)}},
    )


def _as_it_is(checkout: Checkout, *, current: bool) -> Lock:
    from mbpm.project.files import shown
    from mbpm.project.locking import outdated
    from specs.errors import ResolutionError

    lock = checkout.lock()
    if lock is None:
        raise ResolutionError(
            f"{shown(checkout.lock_file)}: is not there", hint="`mbpm lock` makes it"
        )
    why = outdated(checkout.project, lock) if current else None
    if why is not None:
        raise ResolutionError(
            f"{shown(checkout.lock_file)}: is out of date: {why}",
            hint="`mbpm lock` brings it up to date",
        )
    return lock


def _current(state: State, checkout: Checkout, *, dry_run: bool) -> tuple[Lock, list[Change]]:
    from mbpm.project.files import write
    from mbpm.project.locking import outdated
    from mbpm.project.wanting import relock

    lock = checkout.lock()
    why = outdated(checkout.project, lock)
    if lock is not None and why is None:
        return lock, []
    state.out.note(f"{why}: locking")
    lock, difference = relock(state, checkout, lock)
    if not dry_run:
        write(checkout.lock_file, lock.render(), before=checkout.raw_lock)
    return lock, difference
