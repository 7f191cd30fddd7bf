"""`mbpm pack`: check a pack folder and make an archive of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbpm.output import size
from mbpm.state import State

if TYPE_CHECKING:
    from mbpm.output import Output
    from specs.base_card import BaseCard
    from specs.manifest import Manifest


def command(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A pack folder, as `mbpm train` makes it")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the archive goes")
    ] = Path(),
    registry: Annotated[
        Path | None,
        typer.Option(metavar="DIRECTORY", help="A registry that knows the pack's base"),
    ] = None,
) -> None:
    """Check a pack folder and make NAME-VERSION.mbpack of it.

    $ mbpm pack legal-pack --output dist
    """
    from registry_index.archive import archive_name, write_archive
    from registry_index.contents import find_card, prove_attach
    from registry_index.packing import build_manifest

    state: State = ctx.obj
    manifest, files = build_manifest(folder)
    card = find_card(manifest.base, _cards(state, registry))
    modules = prove_attach(manifest, files, card)
    output.mkdir(parents=True, exist_ok=True)
    target = output / archive_name(manifest)
    write_archive(manifest, files, target)
    state.out.line(str(target))
    describe(state.out, manifest, card.name, modules)
    state.out.line(f"archive  {size(target.stat().st_size)}")
    state.out.result(
        {
            "archive": str(target),
            "archive_size": target.stat().st_size,
            **summary(manifest, card.name, modules),
        }
    )


def describe(out: Output, manifest: Manifest, base: str, modules: int) -> None:
    """What a pack is and holds, for people."""
    out.line(f"digest   sha256:{manifest.digest()}")
    out.line(f"attach   {modules} of {manifest.adapter.modules} modules of {base}")
    out.table(
        ["FILE", "SIZE", "SHA256"],
        [[b.path, size(b.size), b.sha256[:16]] for b in manifest.blobs],
    )


def summary(manifest: Manifest, base: str, modules: int) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "name": manifest.name,
        "version": manifest.version,
        "manifest": manifest.digest(),
        "size": manifest.size,
        "attach": {"base": base, "modules": modules, "expected": manifest.adapter.modules},
        "files": [{"path": b.path, "size": b.size, "sha256": b.sha256} for b in manifest.blobs],
    }


def _cards(state: State, registry: Path | None) -> list[BaseCard]:
    """Every base card at hand: the registry's that was named, the bundled ones, the installed."""
    from registry_index import bundled
    from registry_index.tree import Registry

    cards = [] if registry is None else Registry(registry.expanduser()).bases()
    cards += bundled().bases()
    home = state.home
    return cards + [home.store.card(base.card) for base in home.current().bases]
