"""`mbpm profile`: installs that share one store."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import DryRun, Yes, complete_profiles
from mbpm.state import State

if TYPE_CHECKING:
    from mbpm.home import Home
    from specs.generation import Generation

app = typer.Typer(
    add_completion=False,
    help="List and remove profiles: installs that share one store. `--profile NAME` makes any "
    "command work on one, `mbpm sync` on that of a project.",
)


@app.command("list")
def list_profiles(ctx: typer.Context) -> None:
    """List the profiles of this home and what they hold.

    $ mbpm profile list
    """
    from mbpm.output import size

    state: State = ctx.obj
    home = state.home
    rows, table = [], []
    for name in home.profiles():
        profile = home.with_profile(name)
        current = _current(profile)
        active = name == home.profile
        taken = _bytes(profile, current) if current else 0
        rows.append(
            {
                "name": name,
                "active": active,
                "damaged": current is None,
                "generation": current.number if current else None,
                "changed": current.created if current else "",
                "packs": [p.name for p in current.packs] if current else [],
                "bases": [b.name for b in current.bases] if current else [],
                "bytes": taken,
            }
        )
        mark = "*" if active else ""
        if current is None:
            table.append([mark, name, "damaged", "", "", ""])
        else:
            when = current.created.replace("T", " ").removesuffix("Z") or "never"
            counts = [str(len(current.packs)), str(len(current.bases))]
            table.append([mark, name, *counts, size(taken), when])
    state.out.result({"profiles": rows})
    state.out.table(["", "PROFILE", "PACKS", "BASES", "SIZE", "CHANGED"], table)


@app.command("remove")
def remove_profiles(
    ctx: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Profiles", autocompletion=complete_profiles)
    ],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Remove profiles with everything in them, and their history.

    Their bytes stay until `mbpm gc`, for other profiles may need them. The default profile cannot
    be removed.

    $ mbpm profile remove clinic
    """
    from mbpm.transaction import writer

    state: State = ctx.obj
    out, home = state.out, state.home
    names = list(dict.fromkeys(names))
    for name in names:
        _check(home, name)
    for name in names:
        out.line(f"remove     profile {name} ({_held(_current(home.with_profile(name)))})")
    if not dry_run:
        out.confirm("Remove them and their history?", yes=yes)
        with writer(home, out, state.command_line):
            for name in names:
                _remove(home.with_profile(name))
        out.note(f"removed {', '.join(names)}")
        out.hint("`mbpm gc` frees what no profile needs any more")
    out.result({"removed": names, "changed": not dry_run})


def _current(home: Home) -> Generation | None:
    """What the profile holds; None where that cannot be read."""
    from specs.errors import IntegrityError

    try:
        return home.current()
    except IntegrityError:
        return None


def _held(current: Generation | None) -> str:
    if current is None:
        return "damaged"
    names = [*(p.name for p in current.packs), *(f"base {b.name}" for b in current.bases)]
    return ", ".join(names) or "empty"


def _bytes(home: Home, generation: Generation) -> int:
    """Bytes of everything installed, files that packs share counted once."""
    from specs.errors import IntegrityError

    sizes: dict[str, int] = {}
    for pack in generation.packs:
        with suppress(IntegrityError):
            sizes |= {b.sha256: b.size for b in home.store.manifest(pack.manifest).blobs}
    for base in generation.bases:
        with suppress(IntegrityError):
            files = home.store.card(base.card).files
            sizes |= {f.blob.sha256: f.blob.size for f in files}
    return sum(sizes.values())


def _check(home: Home, name: str) -> None:
    import difflib

    from mbpm.home import DEFAULT_PROFILE
    from specs.errors import NotFoundError, UsageError

    if name == DEFAULT_PROFILE:
        raise UsageError(
            f"the profile `{DEFAULT_PROFILE}` cannot be removed",
            hint="`mbpm remove NAME` removes a pack of it",
        )
    there = home.profiles()[1:]
    if name not in there:
        close = difflib.get_close_matches(name, there, n=1)
        hint = f"did you mean `{close[0]}`?" if close else "`mbpm profile list` lists them"
        raise NotFoundError(f"there is no profile `{name}`", hint=hint)


def _remove(home: Home) -> None:
    """Take a profile away; killed at any moment it is there or it is not."""
    import uuid

    from mbpm.files import remove, sync_folder

    away = home.staging / uuid.uuid4().hex
    home.staging.mkdir(parents=True, exist_ok=True)
    home.root.rename(away)
    sync_folder(home.root.parent)
    remove(away)
