"""`mbpm info`: the short facts."""

from __future__ import annotations

import typer

from mbpm.state import State


def command(ctx: typer.Context) -> None:
    """Show home, versions, processor, what is installed and the disk it takes.

    Nothing is checked: that is what `mbpm doctor` does.

    $ mbpm info --json
    """
    from mbpm import facts
    from mbpm.output import size

    state: State = ctx.obj
    out, home = state.out, state.home
    found = facts.describe(home)
    generation = home.current()
    cpu, memory, disk = found["cpu"], found["memory"], found["disk"]
    rows = {
        "mbpm": found["versions"]["mbpm"],
        "python": found["versions"]["python"],
        "torch": found["versions"]["torch"] or "not installed",
        "system": found["system"],
        "cpu": ", ".join(
            [cpu["name"], f"{cpu['threads']} threads", " ".join(cpu["features"])]
        ).rstrip(", "),
        "memory": "unknown" if memory is None else size(memory),
        "home": f"{found['home']} (generation {generation.number})",
        "bases": ", ".join(b.name for b in generation.bases) or "none",
        "packs": ", ".join(f"{p.name} {p.version}" for p in generation.packs) or "none",
        "disk": f"{size(disk['store'])} used, {size(disk['free'])} free",
    }
    for name, value in rows.items():
        out.line(f"{name:<8} {value}")
    out.result(
        {
            **found,
            "generation": generation.number,
            "bases": [b.name for b in generation.bases],
            "packs": [{"name": p.name, "version": p.version} for p in generation.packs],
        }
    )
