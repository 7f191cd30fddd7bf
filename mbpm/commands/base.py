"""`mbpm base`: the models packs are added to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import DryRun, Registries, Yes, complete_bases
from mbpm.state import State

if TYPE_CHECKING:
    from mbpm.offers import BaseOffer
    from mbpm.verify import Check

app = typer.Typer(
    add_completion=False,
    help="List, install, publish, remove and verify bases: the models that packs are added to.",
)


@app.command("list")
def list_bases(ctx: typer.Context, registry: Registries = None) -> None:
    """List the bases there are and which are installed.

    $ mbpm base list
    """
    from mbpm.output import size

    state: State = ctx.obj
    generation = state.home.current()
    cards = {o.card.name: o.card for o in state.catalogue(registry).bases()}
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
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FOLDER",
            help="A base of `mbpm base list`, or a base folder",
            autocompletion=complete_bases,
        ),
    ],
    registry: Registries = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    reinstall: Annotated[
        bool, typer.Option("--reinstall", help="Check installed files and fetch what is damaged")
    ] = False,
) -> None:
    """Install a base. A download that was cut goes on where it stopped.

    $ mbpm base install qwen2.5-0.5b
    $ mbpm base install ./austen-base
    """
    from mbpm.change import carry_out
    from mbpm.change.install import prepare_base
    from mbpm.offers import read_local_base

    state: State = ctx.obj
    catalogue = state.catalogue(registry)
    local = "/" in name or "\\" in name or name in (".", "..")

    def offer() -> BaseOffer:
        return read_local_base(Path(name).expanduser()) if local else catalogue.base(name)

    carry_out(
        state,
        lambda: prepare_base(state.home, offer(), reinstall=reinstall),
        yes=yes,
        dry_run=dry_run,
    )


@app.command("remove")
def remove_base(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="An installed base", autocompletion=complete_bases)],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Remove a base. Refused while an installed pack needs it.

    $ mbpm base remove qwen2.5-0.5b
    """
    from mbpm.change import carry_out
    from mbpm.change.removal import prepare_removal

    state: State = ctx.obj
    carry_out(state, lambda: prepare_removal(state.home, [], [name]), yes=yes, dry_run=dry_run)


@app.command("publish")
def publish_base(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(help="A base folder, as `mbpm train --base FILE.toml` makes it")
    ],
    registry: Annotated[
        str, typer.Option(metavar="DIRECTORY", help="The registry; made where it is missing")
    ],
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Publish a base of your own to a registry, which serves its files itself.

    Packs made for it can then be published there too. What is published under a name stays: another
    base needs another name.

    $ mbpm base publish austen-base --registry ~/packs
    """
    from mbpm.commands.publish import directory
    from mbpm.offers import read_local_base
    from mbpm.output import size
    from registry_index.publish import publish_base as put

    state: State = ctx.obj
    root = directory(registry)
    card = read_local_base(folder).card
    served = card.model_copy(
        # the registry serves the files; where they lay on this machine is nobody's business
        update={"files": tuple(f.model_copy(update={"sources": ()}) for f in card.files)}
    )
    state.out.line(f"publish  base {card.name} to {root}")
    state.out.line(f"digest   sha256:{card.fingerprint}")
    state.out.table(
        ["FILE", "SIZE", "SHA256"],
        [[f.blob.path, size(f.blob.size), f.blob.sha256[:16]] for f in card.files],
    )
    if not dry_run:
        state.out.confirm("Publish?", yes=yes)
        put(served, root, {f.blob.path: folder / f.blob.path for f in card.files})
        state.out.note(f"published base {card.name}")
        if state.out.mode == "human":
            state.out.hint(f"install it with `mbpm base install {card.name} --registry {root}`")
    state.out.result(
        {
            "registry": str(root),
            "published": not dry_run,
            "base": {"name": card.name, "fingerprint": card.fingerprint},
            "files": [{"path": f.blob.path, "size": f.blob.size} for f in card.files],
        }
    )


@app.command("verify")
def verify_base(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Installed bases; all if none", autocompletion=complete_bases
        ),
    ] = None,
) -> None:
    """Check every byte of installed bases.

    $ mbpm base verify
    """
    from mbpm.commands.verify import report
    from mbpm.verify import check_base, installed_bases, steady

    state: State = ctx.obj
    home = state.home

    def look() -> list[Check]:
        return [check_base(home, b) for b in installed_bases(home, names or [])]

    report(state, steady(home, look))
