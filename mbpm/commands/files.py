"""`mbpm files`: the files of a pack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import complete_installed
from mbpm.state import State

if TYPE_CHECKING:
    from mbpm.home import Home
    from mbpm.owners import Owner


def command(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(help="An installed pack or base", autocompletion=complete_installed)
    ],
) -> None:
    """List the files of an installed pack or base, with size, digest and place; as `dpkg -L`.

    `mbpm owner` goes the other way, and `mbpm verify` reads every byte.

    $ mbpm files medical
    """
    from mbpm.output import size

    state: State = ctx.obj
    out = state.out
    owner, folder = _named(state.home, name)
    rows, documents, problems = [], [], []
    for file in owner.files:
        path = folder / file.name
        present = _size(path) == file.size
        if not present:
            problems.append(f"{path}: {'has the wrong size' if path.exists() else 'is missing'}")
        rows.append([size(file.size), file.sha256[:16], str(path)])
        documents.append(
            {"path": str(path), "size": file.size, "sha256": file.sha256, "present": present}
        )
    out.result(
        {
            "kind": owner.kind,
            "name": owner.name,
            "version": owner.version or None,
            "folder": str(folder),
            "files": documents,
        }
    )
    out.table(["SIZE", "SHA256", "PATH"], rows)
    for problem in problems:
        out.warn(problem)
    if problems:
        base = "base " if owner.kind == "base" else ""
        out.hint(f"`mbpm {base}install {name} --reinstall` brings them back")


def _named(home: Home, name: str) -> tuple[Owner, Path]:
    """What is installed under a name, and its folder.

    Raises:
        NotFoundError: nothing.
        IntegrityError: its manifest or card is damaged.
    """
    from mbpm.owners import owner_of_base, owner_of_pack
    from mbpm.verify import installed_packs

    current = home.current()
    if current.pack(name) is None and (base := current.base(name)) is not None:
        home.store.card(base.card)
        owner = owner_of_base(home, current, base, installed=True)
        return owner, home.store.base_path(base.card)
    (pack,) = installed_packs(home, [name])
    home.store.manifest(pack.manifest)
    owner = owner_of_pack(home, current, pack, installed=True)
    return owner, home.store.pack_path(pack.manifest)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
