"""`mbpm install`: packs, and the base they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.state import State

if TYPE_CHECKING:
    from mbpm.install import Prepared


def command(
    ctx: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET",
            help="NAME, NAME@REQUIREMENT (such as `medical@1.2`), a pack FOLDER or a FILE.mbpack",
        ),
    ],
    registry: Annotated[
        list[str] | None,
        typer.Option("--registry", metavar="DIRECTORY", help="Look here first; may be repeated"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and change nothing")
    ] = False,
    reinstall: Annotated[
        bool, typer.Option("--reinstall", help="Check installed files and fetch what is damaged")
    ] = False,
) -> None:
    """Install packs, what they require, and the base they need.

    Shows the plan and asks. Nothing changes until everything was fetched and checked; then all of
    it changes at once.
    """
    from mbpm.catalogue import Catalogue, registry_roots
    from mbpm.install import parse_target, prepare

    state: State = ctx.obj
    catalogue = Catalogue(registry_roots(registry))
    requests = [parse_target(text) for text in targets]

    def again() -> Prepared:
        return prepare(state.home, requests, catalogue, reinstall=reinstall)

    prepared = again()
    for record in prepared.satisfied:
        whole = ", and every byte of it is right" if reinstall else ""
        state.out.note(f"{record.name} {record.version} is installed already{whole}")
    run(state, prepared, again, yes=yes, dry_run=dry_run)


def run(
    state: State, prepared: Prepared, again: Callable[[], Prepared], *, yes: bool, dry_run: bool
) -> None:
    """Show a plan, ask, carry it out and say so; shared with `mbpm base install`."""
    from mbpm.install import apply
    from mbpm.plan import show
    from mbpm.transaction import writer

    out, plan = state.out, prepared.plan
    document = {"plan": plan.model_dump(mode="json"), "changed": False}
    if plan.empty:
        if state.home.journal.exists():
            # a killed command got as far as this; what it left is put right all the same
            with writer(state.home, out, state.command_line):
                pass
        out.result({**document, "generation": prepared.before.number})
        return
    show(plan, out, prepared.resident)
    if dry_run:
        out.result({**document, "generation": prepared.before.number})
        return
    out.confirm("Go ahead?", yes=yes)
    with writer(state.home, out, state.command_line) as right:
        generation = apply(right, prepared, again, out, offline=state.offline)
    for pack in plan.packs:
        out.note(f"installed {pack.name} {pack.new}")
    for base in plan.bases:
        out.note(f"installed base {base.name}")
    out.result({**document, "changed": True, "generation": generation.number})
