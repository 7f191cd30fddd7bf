"""Which options were typed, rather than left at their defaults."""

from __future__ import annotations

from collections.abc import Container

import typer


def typed(ctx: typer.Context, names: Container[str]) -> str | None:
    """The first option among `names` that stands on the command line, as it is written there."""
    for option in ctx.command.params:
        # what commands share with one another is not handed to the function
        if option.name in names and option.expose_value:
            source = ctx.get_parameter_source(option.name or "")
            if source is not None and source.name == "COMMANDLINE":
                return option.opts[0]
    return None
