"""`mbpm yank`: take a published version out of sight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import DryRun
from mbpm.state import State
from specs.errors import UsageError

if TYPE_CHECKING:
    from specs.versions import Version


def command(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="NAME@=VERSION", help="The version, as `legal@=1.2.0`")
    ],
    registry: Annotated[
        str, typer.Option(metavar="DIRECTORY", help="The registry it was published to")
    ],
    undo: Annotated[bool, typer.Option("--undo", help="Show a yanked version again")] = False,
    deprecate: Annotated[
        str | None,
        typer.Option(
            metavar="MESSAGE",
            help="Do not yank it, but have this said wherever it is installed; '' takes it back. "
            "Then `NAME` alone means every version",
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Hide a published version from everybody who does not have it already, or deprecate it.

    It stays installed where it is, and a lock that names it still gets it; nothing else chooses it.
    Nothing is deleted, `--undo` takes it back, and so nothing is asked.

    $ mbpm yank legal@=1.2.0 --registry ~/packs
    $ mbpm yank law --registry ~/packs --deprecate "renamed to legal"
    """
    from mbpm.commands.publish import directory
    from registry_index.marking import deprecate as mark
    from registry_index.marking import yank

    state: State = ctx.obj
    root = directory(registry)
    name, version = _parse(target, whole=deprecate is not None)
    which = f"{name} {version}" if version else name
    if deprecate is not None:
        if undo:
            raise UsageError("`--undo` is for yanking; `--deprecate ''` takes a message back")
        changed = mark(root, name, version, deprecate, dry_run=dry_run)
        done = "deprecated" if deprecate else "not deprecated any more"
    else:
        assert version is not None
        changed = yank(root, name, version, undo=undo, dry_run=dry_run)
        done = "to be had again" if undo else "yanked"
    if changed and dry_run:
        state.out.note(f"{which} would be {done}")
    else:
        state.out.note(f"{which} is {done}" if changed else f"{which} is {done} already")
    state.out.result(
        {
            "pack": name,
            "version": version and version.text,
            "changed": changed and not dry_run,
        }
    )


def _parse(target: str, *, whole: bool) -> tuple[str, Version | None]:
    from specs.names import check_name
    from specs.versions import Version

    name, at, text = target.partition("@")
    try:
        check_name(name)
        if not at and whole:
            return name, None
        if not text.startswith("="):
            raise ValueError(f"`{target}` names no exact version")
        return name, Version(text[1:].strip())
    except ValueError as error:
        raise UsageError(str(error), hint=f"write `{name}@=1.2.0`") from None
