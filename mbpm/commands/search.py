"""`mbpm search`: packs that could be installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import Registries
from mbpm.state import State

if TYPE_CHECKING:
    from specs.index_line import EvalSummary, IndexLine


def command(
    ctx: typer.Context,
    terms: Annotated[
        list[str] | None,
        typer.Argument(metavar="TERM", help="Words of name, domain or description"),
    ] = None,
    registry: Registries = None,
) -> None:
    """Search the registry; without words, list everything in it."""
    state: State = ctx.obj
    catalogue = state.catalogue(registry)
    generation = state.home.current()
    found = []
    for name in catalogue.names():
        usable = [c for c in catalogue.candidates(name) if not c.line.yanked]
        if not usable:
            continue
        stable = [c for c in usable if not c.version.prerelease]
        line = max(stable or usable, key=lambda c: c.version).line
        if _matches(line, terms or []):
            installed = generation.pack(name)
            found.append((line, installed.version if installed else None))
    state.out.result(
        {
            "packs": [
                {**line.model_dump(mode="json"), "installed": installed}
                for line, installed in found
            ]
        }
    )
    if not found:
        state.out.note("no pack matches" if terms else f"no packs in {catalogue.describe()}")
        return
    state.out.table(
        ["NAME", "VERSION", "INSTALLED", "BASE", "GAIN", "DESCRIPTION"],
        [
            [
                line.name,
                line.version,
                installed or "no",
                line.base.name,
                gain(line.evals),
                line.description,
            ]
            for line, installed in found
        ],
    )


def gain(evals: EvalSummary | None) -> str:
    """The main metric of a pack beside the base's: `accuracy 0.31 -> 0.42`."""
    if evals is None:
        return "unknown"
    return f"{evals.metric} {evals.base:.4g} -> {evals.pack:.4g}"


def _matches(line: IndexLine, terms: list[str]) -> bool:
    text = f"{line.name} {line.domain} {line.description} {' '.join(line.provides)}".lower()
    return all(term.lower() in text for term in terms)
