"""`mbpm init`: the beginning of a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mbpm.options import DryRun
from mbpm.state import State


def command(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The project's folder; made if it is not there")
    ] = Path(),
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Its name; else the folder's")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="NAME", help="The base it uses, whatever packs it has"),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Begin a project: write an mbpm.toml without packs.

    A project has its own profile: what `mbpm sync` installs for it does not touch what you
    installed yourself. `--profile NAME` picks another than the project's name.

    $ mbpm init clinic
    $ cd clinic && mbpm add medical
    """
    from mbpm.project.edit import new_file
    from mbpm.project.files import shown, write
    from specs.errors import IntegrityError, MbpmError, UsageError
    from specs.project import PROJECT_FILE, Project

    state: State = ctx.obj
    folder = folder.expanduser().absolute()
    file = folder / PROJECT_FILE
    if file.exists():
        raise MbpmError(
            f"{shown(file)}: is there already, and was left as it is",
            hint="`mbpm add NAME` adds a pack to it",
        )
    given = {"name": name or _from(folder), "profile": state.profile, "base": base}
    project = {key: value for key, value in given.items() if value is not None}
    try:
        Project.from_object({"project": project}, PROJECT_FILE)
    except IntegrityError as error:
        raise UsageError(
            error.message.removeprefix(f"{PROJECT_FILE}: "),
            hint=None if name else "`--name NAME` names it",
        ) from None
    text = new_file(**project)
    state.out.result({"file": str(file), "name": project["name"], "changed": not dry_run})
    if dry_run:
        state.out.line(text.decode().rstrip("\n"))
        return
    folder.mkdir(parents=True, exist_ok=True)
    write(file, text, before=None)
    state.out.note(f"wrote {shown(file)}")
    state.out.hint("`mbpm add NAME` adds a pack; `mbpm search` lists the packs there are")


def _from(folder: Path) -> str:
    """A folder's name as a project's, where it is nearly one."""
    return "-".join(folder.name.lower().split())
