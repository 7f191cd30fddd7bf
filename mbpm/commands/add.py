"""`mbpm add`: more packs for a project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import DryRun, ProjectFolder, Yes, complete_known
from mbpm.state import State

if TYPE_CHECKING:
    from specs.project import WantedPack

NoSync = Annotated[
    bool, typer.Option("--no-sync", help="Change mbpm.toml and mbpm.lock only, install nothing")
]


def command(
    ctx: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="NAME or NAME@REQUIREMENT (such as `medical@~0.1`)",
            autocompletion=complete_known,
        ),
    ],
    registry: Annotated[
        str | None,
        typer.Option(
            "--registry",
            metavar="REGISTRY",
            help="Take them from this registry only: a name, a directory or an address",
        ),
    ] = None,
    no_sync: NoSync = False,
    project: ProjectFolder = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Add packs to the project: to mbpm.toml, to mbpm.lock, and to its profile.

    Without a requirement the newest version that fits is taken, and what is compatible with it is
    required from then on (`^1.2.0`). A pack that is there already gets the new requirement. What
    is locked stays at its version where it can. Nothing is written if no versions fit together, or
    if they cannot be fetched.

    $ mbpm add medical
    $ mbpm add legal@~1.2 --registry https://packs.example.org
    """
    from mbpm.project.files import open_project
    from mbpm.project.places import as_written
    from mbpm.project.syncing import for_profile
    from mbpm.project.wanting import want

    state: State = ctx.obj
    checkout = open_project(project)
    there = checkout.project.packs
    place = as_written(registry, checkout.folder, checkout.project) if registry else None
    put: dict[str, WantedPack] = {}
    newest = []
    for name, requirement in map(_parse, targets):
        old = there.get(name)
        if requirement is None and old is None:
            newest.append(name)
        put[name] = _wanted(
            requirement or (old.version if old else "*"),
            place or (old.registry if old else None),
        )
        if put[name] == old:
            state.out.note(f"{name} is in {checkout.file.name} already")
    want(
        for_profile(state, checkout.project),
        checkout,
        put=put,
        newest=newest,
        only_files=no_sync,
        yes=yes,
        dry_run=dry_run,
    )


def _parse(text: str) -> tuple[str, str | None]:
    from specs.errors import UsageError
    from specs.names import check_name
    from specs.versions import Requirement

    if "/" in text or "\\" in text or text in (".", "..") or text.endswith(".mbpack"):
        raise UsageError(
            f"`{text}` is a folder or a file, and a project takes packs from registries",
            hint="`mbpm publish FOLDER --registry ./packs` makes a registry inside the project; "
            "then `mbpm add NAME --registry ./packs`",
        )
    name, at, requirement = text.partition("@")
    try:
        check_name(name)
        return name, Requirement(requirement.strip()).text if at else None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _wanted(version: str, registry: str | None) -> WantedPack:
    from specs.errors import IntegrityError, UsageError
    from specs.project import WantedPack

    try:
        return WantedPack.from_object({"version": version, "registry": registry}, "--registry")
    except IntegrityError as error:
        raise UsageError(error.message) from None
