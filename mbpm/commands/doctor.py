"""`mbpm doctor`: what is wrong, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict

import typer

from mbpm.options import Registries
from mbpm.state import State
from specs.errors import MbpmError


def command(
    ctx: typer.Context,
    registry: Registries = None,
) -> None:
    """Look at the home, the device, what is installed and the registries; exit 1 when something
    is wrong.

    Registries are asked, and torch is loaded to see the device. The bytes themselves are checked by
    `mbpm verify`.

    $ mbpm doctor
    """
    from mbpm.diagnosis import diagnose

    state: State = ctx.obj
    out = state.out
    findings = diagnose(
        state.home, lambda: state.catalogue(registry).sources(), offline=state.offline
    )
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
