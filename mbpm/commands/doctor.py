"""`mbpm doctor`: what is wrong, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from mbpm.state import State
from specs.errors import MbpmError


def command(
    ctx: typer.Context,
    registry: Annotated[
        list[str] | None,
        typer.Option("--registry", metavar="DIRECTORY", help="Look at this one too; may repeat"),
    ] = None,
) -> None:
    """Look at the home, the device, what is installed and the registries; exit 1 when something
    is wrong.

    The bytes themselves are checked by `mbpm verify`.
    """
    from mbpm.catalogue import registry_roots
    from mbpm.diagnosis import diagnose

    state: State = ctx.obj
    out = state.out
    findings = diagnose(state.home, registry_roots(registry))
    problems = [f for f in findings if f.level == "problem"]
    width = max(len(f.subject) for f in findings)
    for finding in findings:
        out.line(f"{finding.level:<8} {finding.subject:<{width}}  {finding.text}")
        if finding.hint:
            out.line(f"{'':<8} {'':<{width}}  hint: {finding.hint}")
    document = {"ok": not problems, "findings": [asdict(f) for f in findings]}
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise MbpmError(f"{count} found", details=document)
    out.result(document)
