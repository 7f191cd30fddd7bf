"""`mbpm outdated`: installed packs that have a newer version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbpm.options import AllOrNames, Prereleases, Registries
from mbpm.state import State

if TYPE_CHECKING:
    from mbpm.upgrades import Outdated

UPGRADES_EXIST = 10
"""The exit code with `--exit-code` where `mbpm upgrade` would do something."""


def command(
    ctx: typer.Context,
    names: AllOrNames = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with exit code 10 if upgrades exist")
    ] = False,
    registry: Registries = None,
    pre: Prereleases = False,
) -> None:
    """List installed packs that have a newer version, without changing anything.

    CANDIDATE is what `mbpm upgrade` would take, `-` where it would take nothing, and NEWEST the
    newest version there is; where the two differ, NOTE says why. EVAL compares the main metric of
    the installed version with the new one's.

    With `--exit-code`, the exit code is 10 if there is a candidate, and 0 if there is none.

    $ mbpm outdated
    $ mbpm outdated --exit-code
    """
    from mbpm.upgrades import outdated

    state: State = ctx.obj
    out = state.out
    found = outdated(state, names or [], registry, prereleases=pre)
    out.result({"packs": [_document(o) for o in found]})
    if found:
        out.table(
            ["NAME", "INSTALLED", "CANDIDATE", "NEWEST", "EVAL", "NOTE"],
            [_row(o) for o in found],
        )
    else:
        any_packs = bool(state.home.current().packs)
        out.note("everything is up to date" if any_packs else "no packs are installed")
    upgrades = any(o.candidate for o in found)
    if upgrades and out.mode == "human":
        out.hint("`mbpm upgrade` takes the candidates; `mbpm changelog NAME` shows what is new")
    if upgrades and exit_code:
        raise typer.Exit(UPGRADES_EXIST)


def _row(found: Outdated) -> list[str]:
    from mbpm.releases import eval_change, headline

    new = found.candidate
    notes = [f"kept back: {found.kept_back}"] if found.kept_back else []
    if headline(found.notes):
        notes.append(headline(found.notes))
    return [
        found.record.name,
        found.record.version,
        new.version if new else "-",
        found.newest,
        eval_change(found.line.evals if found.line else None, new.evals if new else None),
        "; ".join(notes),
    ]


def _document(found: Outdated) -> dict[str, Any]:
    def evals(line: Any) -> Any:
        return line.evals.model_dump(mode="json") if line and line.evals else None

    return {
        "name": found.record.name,
        "installed": found.record.version,
        "candidate": found.candidate.version if found.candidate else None,
        "newest": found.newest,
        "kept_back": found.kept_back or None,
        "notes": found.notes,
        "evals": {"installed": evals(found.line), "candidate": evals(found.candidate)},
        "registry": found.record.registry,
    }
