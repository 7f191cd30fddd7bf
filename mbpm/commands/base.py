"""`mbpm base`: the models packs are added to."""

from __future__ import annotations

from typing import Annotated

import typer

from mbpm.state import State

app = typer.Typer(
    add_completion=False,
    help="List, install, remove and verify bases: the models that packs are added to.",
)

Registries = Annotated[
    list[str] | None,
    typer.Option("--registry", metavar="DIRECTORY", help="Look here too; may be repeated"),
]


@app.command("list")
def list_bases(ctx: typer.Context, registry: Registries = None) -> None:
    """List the bases there are and which are installed."""
    from mbpm.catalogue import Catalogue, registry_roots
    from mbpm.output import size

    state: State = ctx.obj
    generation = state.home.current()
    cards = {o.card.name: o.card for o in Catalogue(registry_roots(registry)).bases()}
    for installed in generation.bases:
        cards.setdefault(installed.name, state.home.store.card(installed.card))
    rows = []
    for card in cards.values():
        record = generation.base(card.name)
        rows.append(
            {
                "name": card.name,
                "installed": record is not None and record.fingerprint == card.fingerprint,
                "parameters": card.parameters,
                "download_bytes": card.size,
                "resident_bytes": card.resident_bytes,
                "license": card.license,
                "fingerprint": card.fingerprint,
                "description": card.description,
            }
        )
    state.out.result({"bases": rows})
    state.out.table(
        ["NAME", "INSTALLED", "DOWNLOAD", "MEMORY", "LICENCE", "DESCRIPTION"],
        [
            [
                card.name,
                "yes" if row["installed"] else "no",
                size(card.size),
                size(card.resident_bytes),
                card.license,
                card.description,
            ]
            for card, row in zip(cards.values(), rows, strict=True)
        ],
    )


@app.command("install")
def install_base(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A base of `mbpm base list`")],
    registry: Registries = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and change nothing")
    ] = False,
    reinstall: Annotated[
        bool, typer.Option("--reinstall", help="Check installed files and fetch what is damaged")
    ] = False,
) -> None:
    """Install a base. A download that was cut goes on where it stopped."""
    from mbpm.catalogue import Catalogue, registry_roots
    from mbpm.commands.install import run
    from mbpm.install import Prepared, prepare_base

    state: State = ctx.obj
    catalogue = Catalogue(registry_roots(registry))

    def again() -> Prepared:
        return prepare_base(state.home, name, catalogue, reinstall=reinstall)

    prepared = again()
    if prepared.plan.empty:
        whole = ", and every byte of it is right" if reinstall else ""
        state.out.note(f"base {name} is installed already{whole}")
    run(state, prepared, again, yes=yes, dry_run=dry_run)


@app.command("remove")
def remove_base(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="An installed base")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and change nothing")
    ] = False,
) -> None:
    """Remove a base and free its disk. Refused while an installed pack needs it."""
    from mbpm.commands.remove import run

    run(ctx.obj, [], [name], yes=yes, dry_run=dry_run)


@app.command("verify")
def verify_base(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Installed bases; all if none")
    ] = None,
) -> None:
    """Check every byte of installed bases."""
    from mbpm.commands.verify import report
    from mbpm.verify import check_base, installed_bases

    state: State = ctx.obj
    report(state, [check_base(state.home, b) for b in installed_bases(state.home, names or [])])
