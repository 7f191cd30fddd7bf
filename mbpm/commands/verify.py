"""`mbpm verify`: is what is installed still what was installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import AllOrNames
from mbpm.state import State
from specs.errors import IntegrityError

if TYPE_CHECKING:
    from mbpm.verify import Check


def command(
    ctx: typer.Context,
    names: AllOrNames = None,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Load the base too, and replay the answers packs recorded"),
    ] = False,
) -> None:
    """Check every byte of installed packs and bases, and that each pack attaches to its base.

    Without names the bases are checked too. `--deep` also runs the base and compares what it says,
    alone and with each pack, with what was recorded when the pack was made. `mbpm repair` mends
    what is damaged.

    $ mbpm verify
    $ mbpm verify medical --deep
    """
    from mbpm.verify import check_base, check_behaviour, check_pack, installed_packs, steady

    state: State = ctx.obj
    home = state.home

    def look() -> list[Check]:
        generation = home.current()
        packs = installed_packs(home, names or [])
        checks = [check_pack(home, p, generation) for p in packs]
        bases = []
        if deep:
            state.out.note("replaying recorded answers")
            sound = [(p, c) for p, c in zip(packs, checks, strict=True) if not c.problems]
            bases = check_behaviour(home, sound)
        done = {c.name for c in bases}
        if not names:
            bases += [check_base(home, b) for b in generation.bases if b.name not in done]
        return [*checks, *bases]

    report(state, steady(home, look))


def report(state: State, checks: Sequence[Check]) -> None:
    """Print what was found; shared with `mbpm base verify`.

    Raises:
        IntegrityError: something is damaged.
    """
    from mbpm.output import size

    out = state.out
    damaged = [c for c in checks if c.problems]
    for check in checks:
        title = f"base {check.name}" if check.kind == "base" else f"{check.name} {check.version}"
        if check.problems:
            out.line(f"damaged  {title}")
            for problem in check.problems:
                out.line(f"  {problem}")
            continue
        canaries = ""
        if check.canaries is not None:
            canaries = f", {check.canaries} recorded answer{'' if check.canaries == 1 else 's'}"
        out.line(f"ok       {title} ({size(check.size)}{canaries})")
    if not checks:
        out.note("nothing is installed")
    if damaged:
        names = ", ".join(c.name for c in damaged)
        raise IntegrityError(
            f"damaged: {names}",
            hint="; ".join(f"`{c.mend}`" for c in damaged) + " mends it",
            details={"ok": False, "checks": [_row(c) for c in checks]},
        )
    out.result({"ok": True, "checks": [_row(c) for c in checks]})


def _row(check: Check) -> dict[str, object]:
    return {
        "kind": check.kind,
        "name": check.name,
        "version": check.version or None,
        "ok": not check.problems,
        "problems": check.problems,
        "bytes": check.size,
        "canaries": check.canaries,
    }
