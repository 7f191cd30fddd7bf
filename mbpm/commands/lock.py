"""`mbpm lock`: exact versions for a project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import DryRun, ProjectFolder
from mbpm.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from specs.lockfile import Lock
    from specs.versions import Requirement


def command(
    ctx: typer.Context,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", "-U", help="Take the newest versions that fit")
    ] = False,
    upgrade_pack: Annotated[
        list[str] | None,
        typer.Option(
            "--upgrade-pack",
            "-P",
            metavar="NAME",
            help="Take the newest version of this pack that fits, or with `NAME@=1.2.0` exactly "
            "that one; may be repeated",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Fail if mbpm.lock would change, and leave it as it is"),
    ] = False,
    project: ProjectFolder = None,
    dry_run: DryRun = False,
) -> None:
    """Write mbpm.lock: the exact packs and bases of the project, with their digests.

    What is locked stays at its version, even if it was yanked since, as long as mbpm.toml allows
    it. What is installed has no say in it and is not changed; `mbpm sync` does that. A lock that
    would not change is not touched.

    $ mbpm lock
    $ mbpm lock --upgrade-pack legal@=1.2.0
    $ mbpm lock --upgrade-pack legal
    $ mbpm lock --check
    """
    from mbpm.project import changes
    from mbpm.project.files import open_project, shown, write
    from mbpm.project.syncing import for_profile
    from mbpm.project.wanting import relock
    from specs.errors import IntegrityError, ResolutionError
    from specs.lockfile import LOCK_FILE

    state: State = ctx.obj
    out = state.out
    checkout = open_project(project)
    if check:
        old, wrong = checkout.lock(), None
    else:
        old, wrong = checkout.what_is_left_of_lock()
    if wrong is not None:
        out.warn(f"{wrong}; {LOCK_FILE} is written again")
    asked = _asked(upgrade_pack or (), old)
    if upgrade and old:
        asked = {p.name: asked.get(p.name) for p in old.packs}
    lock, difference = relock(for_profile(state, checkout.project), checkout, old, upgrade=asked)
    data = lock.render()
    changed = data != checkout.raw_lock
    if check and changed:
        suspicious = changes.warnings(difference)
        if suspicious:
            raise IntegrityError(f"{shown(checkout.lock_file)}: {suspicious[0]}")
        raise ResolutionError(
            f"{shown(checkout.lock_file)}: is not what `mbpm lock` would write",
            hint="`mbpm lock` brings it up to date; `mbpm lock --dry-run` shows what would change",
            details={"changes": changes.document(difference)},
        )
    changes.show(difference, out)
    if not dry_run:
        write(checkout.lock_file, data, before=checkout.raw_lock)
    out.result(
        {
            "lock": str(checkout.lock_file),
            "changed": changed and not dry_run,
            "changes": changes.document(difference),
            "packs": len(lock.packs),
        }
    )
    if not changed:
        out.note(f"{shown(checkout.lock_file)} is up to date")
    elif not dry_run:
        count = f"{len(lock.packs)} pack{'' if len(lock.packs) == 1 else 's'}"
        out.note(f"locked {count} in {shown(checkout.lock_file)}")


def _asked(targets: Sequence[str], lock: Lock | None) -> dict[str, Requirement | None]:
    """Locked packs to have another version of, and of some of them which.

    Raises:
        UsageError: what stands behind the `@` is no requirement.
        NotFoundError: the lock has no such pack.
    """
    import difflib

    from specs.errors import NotFoundError, UsageError
    from specs.lockfile import LOCK_FILE
    from specs.versions import Requirement

    there = [p.name for p in lock.packs] if lock is not None else []
    asked: dict[str, Requirement | None] = {}
    for text in targets:
        name, at, requirement = text.partition("@")
        if name not in there:
            close = difflib.get_close_matches(name, there, n=1)
            raise NotFoundError(
                f"{LOCK_FILE}: does not have a pack `{name}`",
                hint=f"did you mean `{close[0]}`?" if close else f"`mbpm add {name}` adds it",
            )
        try:
            asked[name] = Requirement(requirement) if at else None
        except ValueError as error:
            raise UsageError(str(error)) from None
    return asked
