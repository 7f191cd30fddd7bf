"""`mbpm list`: what is installed."""

from __future__ import annotations

import typer

from mbpm.state import State


def command(ctx: typer.Context) -> None:
    """List the installed packs."""
    state: State = ctx.obj
    out = state.out
    generation = state.home.current()
    out.result(
        {
            "generation": generation.number,
            "packs": [p.model_dump(mode="json") for p in generation.packs],
            "bases": [b.model_dump(mode="json") for b in generation.bases],
        }
    )
    if generation.packs:
        out.table(
            ["NAME", "VERSION", "BASE", "FROM"],
            [
                [p.name, p.version, p.base, p.registry + (" (required)" if p.auto else "")]
                for p in generation.packs
            ],
        )
    else:
        out.note("no packs are installed")
        if out.mode == "human":
            out.hint("`mbpm search` lists the packs there are")
