"""`mbpm gc`: free the disk of what nothing installed needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbpm.options import DryRun, Yes
from mbpm.state import State

if TYPE_CHECKING:
    from mbpm.garbage import Waste
    from mbpm.output import Output


def command(
    ctx: typer.Context,
    keep: Annotated[
        int,
        typer.Option(
            "--keep",
            metavar="N",
            min=1,
            help="Keep the bytes of the last N generations of each profile, the current one "
            "included, so that going back needs no network",
        ),
    ] = 1,
    partial: Annotated[
        bool, typer.Option("--partial", help="Also drop unfinished downloads")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Free the disk of everything that no generation which is kept needs, in any profile.

    The history stays; going back to a generation whose bytes were freed fetches them again.
    Unfinished downloads wait two weeks for somebody to go on with them.

    $ mbpm gc --dry-run
    $ mbpm gc --keep 3 --yes
    """
    from mbpm.garbage import free, interrupted, parts_of, waste
    from mbpm.output import size
    from mbpm.transaction import writer

    state: State = ctx.obj
    home, out = state.home, state.out
    found = waste(home, keep, parts=partial)
    dropped = {w.path for w in found}
    kept = [w for w in parts_of(home) if w.path not in dropped]
    show(out, found, kept)
    document = {"found": rows(found), "kept_parts": rows(kept), "freed_bytes": 0}
    if found and not dry_run:
        out.confirm("Free it?", yes=yes)
        with writer(home, out, state.command_line) as right:
            found = waste(home, keep, parts=partial)
            free(right, found)
        freed = sum(w.size for w in found)
        document |= {"found": rows(found), "freed_bytes": freed}
        out.note(f"freed {size(freed)}")
    elif interrupted(home) and not dry_run:
        with writer(home, out, state.command_line):
            pass
    out.result(document)


def show(out: Output, found: Sequence[Waste], kept: Sequence[Waste] = ()) -> None:
    """Print what can be freed, for people; shared with `mbpm clean`."""
    from mbpm.output import size

    for kind, label in (
        ("pack", "pack"),
        ("base", "base"),
        ("part", "unfinished"),
        ("index", "index"),
    ):
        for item in found:
            if item.kind == kind:
                tail = f" ({size(item.size)})" if item.size else ""
                out.line(f"{label:<11}{item.what.removeprefix('base ')}{tail}")
    blobs = [w for w in found if w.kind == "blob"]
    if blobs:
        count = f"{len(blobs)} file{'' if len(blobs) == 1 else 's'}"
        out.line(f"{'store':<11}{count} ({size(sum(w.size for w in blobs))})")
    rest = [w for w in found if w.kind in ("derived", "leftover")]
    if rest:
        out.line(f"{'leftovers':<11}{len(rest)} ({size(sum(w.size for w in rest))})")
    if found:
        out.line(f"{'frees':<11}{size(sum(w.size for w in found))}")
    else:
        out.note("there is nothing to free")
    for item in kept:
        out.line(f"{'kept':<11}{item.what} ({size(item.size)}); `mbpm clean` drops it")


def rows(found: Sequence[Waste]) -> list[dict[str, Any]]:
    """The same as JSON."""
    return [{"kind": w.kind, "what": w.what, "path": str(w.path), "bytes": w.size} for w in found]
