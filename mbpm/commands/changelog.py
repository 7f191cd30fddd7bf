"""`mbpm changelog`: what is new in the versions of a pack."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import Registries, complete_known
from mbpm.state import State
from specs.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from specs.generation import InstalledPack
    from specs.index_line import IndexLine
    from specs.versions import Version


def command(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(help="A pack, installed or in a registry", autocompletion=complete_known),
    ],
    since: Annotated[
        str | None, typer.Option("--since", metavar="VERSION", help="Only what came after VERSION")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every version, also those before the installed one")
    ] = False,
    registry: Registries = None,
) -> None:
    """Show what is new in the versions of a pack, the newest first: date, notes, and how the main
    metric of its evals changed.

    Where the pack is installed, only newer versions are shown, unless `--all` or `--since` says
    otherwise. Versions are marked `installed`, `yanked` (no longer chosen) or `deprecated`.

    $ mbpm changelog medical
    $ mbpm changelog medical --since 0.1.0
    """
    state: State = ctx.obj
    out = state.out
    if everything and since is not None:
        raise UsageError("`--all` and `--since` contradict each other", hint="give one of the two")
    installed = state.home.current().pack(name)
    lines = _lines(state, name, installed, registry)
    after = None if everything else _after(since, installed)
    shown = [x for x in lines if after is None or _version(x) > after]
    earlier = dict(zip((x.version for x in lines), lines[1:], strict=False))
    out.result(
        {
            "name": name,
            "installed": installed.version if installed else None,
            "versions": [_document(x, installed) for x in shown],
        }
    )
    for number, line in enumerate(shown):
        if number:
            out.line()
        _print(state, line, earlier.get(line.version), installed)
    if not shown:
        out.note(f"{name} has no version after {after}")
        if out.mode == "human":
            out.hint(f"`mbpm changelog {name} --all` shows every version")


def _lines(
    state: State, name: str, installed: InstalledPack | None, registry: Sequence[str] | None
) -> list[IndexLine]:
    """The versions of a pack, newest first; at least the installed one."""
    from mbpm.catalogue import line_of

    catalogue = state.catalogue(registry)
    lines: list[IndexLine] = []
    if installed is None:
        lines += (c.line for c in catalogue.candidates(name))
    else:
        # a pack from a folder, or one that its registry lacks now, still tells its own notes
        with suppress(NotFoundError):
            lines += (c.line for c in catalogue.candidates(name))
        if not any(x.manifest == installed.manifest for x in lines):
            own = line_of(state.home.store.manifest(installed.manifest))
            lines.append(own.model_copy(update={"published": ""}))
    return sorted(lines, key=_version, reverse=True)


def _version(line: IndexLine) -> Version:
    from specs.versions import Version

    return Version(line.version)


def _after(since: str | None, installed: InstalledPack | None) -> Version | None:
    from specs.versions import Version

    if since is None:
        return Version(installed.version) if installed else None
    try:
        return Version(since)
    except ValueError as error:
        raise UsageError(f"`--since`: {error}") from None


def _marks(line: IndexLine, installed: InstalledPack | None) -> list[str]:
    marks = ["installed"] if installed and installed.manifest == line.manifest else []
    marks += ["yanked"] if line.yanked else []
    return marks + (["deprecated"] if line.deprecated else [])


def _print(
    state: State, line: IndexLine, earlier: IndexLine | None, installed: InstalledPack | None
) -> None:
    from mbpm.releases import eval_change

    out = state.out
    marks = "".join(f" ({m})" for m in _marks(line, installed))
    out.line(f"{line.name} {line.version}  {line.published[:10] or 'in no registry'}{marks}")
    if line.deprecated:
        out.line(f"  deprecated: {line.deprecated}")
    for text in line.notes.splitlines() or ["no notes"]:
        out.line(f"  {text}".rstrip())
    if change := eval_change(earlier.evals if earlier else None, line.evals):
        out.line(f"  {change}")


def _document(line: IndexLine, installed: InstalledPack | None) -> dict[str, object]:
    return {
        "version": line.version,
        "published": line.published or None,
        "notes": line.notes,
        "evals": line.evals.model_dump(mode="json") if line.evals else None,
        "installed": installed is not None and installed.manifest == line.manifest,
        "yanked": line.yanked,
        "deprecated": line.deprecated or None,
        "forced": list(line.forced),
    }
