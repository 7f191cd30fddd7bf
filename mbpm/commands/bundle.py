"""`mbpm bundle`: packs and their base in one file, for a machine without network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbpm.options import DryRun, NoRecommends, Prereleases, Registries, complete_known
from mbpm.state import State
from specs.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from mbpm.collect import BaseItem, PackItem


def command(
    ctx: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET",
            help="NAME, NAME@REQUIREMENT, a pack FOLDER or a FILE.mbpack; everything that is "
            "installed if none is named",
            autocompletion=complete_known,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.mbundle", help="The file to write")
    ] = Path("packs.mbundle"),
    no_recommends: NoRecommends = False,
    registry: Registries = None,
    pre: Prereleases = False,
    dry_run: DryRun = False,
) -> None:
    """Make one file of packs, all they require and the bases they need, for a machine without
    network. There, `mbpm install FILE.mbundle` installs it.

    Without targets it holds exactly what is installed in the profile. With targets it holds what
    `mbpm install` would bring to an empty machine, whether or not this one can run it. Everything
    is checked as before an installation; nothing that is installed changes. The file also says
    which registry each pack is from, for upgrades later on.

    $ mbpm bundle --output /mnt/stick/mine.mbundle
    $ mbpm bundle medical legal@1.2 --output packs.mbundle
    """
    from mbpm.collect import bring, contents, discard, missing_bytes, scratch_store
    from mbpm.files import check_space
    from mbpm.output import size
    from registry_index.bundle import SUFFIX, write_bundle

    state: State = ctx.obj
    out, file = state.out, output.expanduser()
    if file.suffix != SUFFIX:
        raise UsageError(
            f"{file}: a bundle's name ends with `{SUFFIX}`",
            hint=f"`--output {file.with_suffix(SUFFIX)}`",
        )
    packs, bases = _chosen(state, targets or [], registry, not no_recommends, pre)
    content, documents = contents(packs, bases)
    total = sum(b.size for b in content.blobs)
    scratch = scratch_store(file.parent / f".{file.name}.download")
    missing = missing_bytes(state.home, scratch, packs, bases)
    for item in packs:
        out.line(f"pack       {item.title}{' (required)' if item.auto else ''}")
    for base in bases:
        out.line(f"base       {base.card.name}")
    out.line(f"fetch      {size(missing)}")
    out.line(f"bundle     {file} ({size(total)})")
    for line in (p.line for p in packs if p.line.yanked):
        out.warn(f"{line.name} {line.version} was yanked from its registry")
    if not dry_run:
        file.parent.mkdir(parents=True, exist_ok=True)
        places = bring(state, scratch, packs, bases)
        _prove(packs, bases, places)
        check_space(file.parent, total, f"{file}")
        write_bundle(content, {**places, **documents}, file)
        discard(scratch)
        out.note(f"wrote {file} ({size(file.stat().st_size)})")
        if out.mode == "human":
            out.hint(f"`mbpm install {file.name}` on the other machine")
    out.result(
        {
            "file": str(file),
            "size": None if dry_run else file.stat().st_size,
            "packs": [_pack(p) for p in packs],
            "bases": [{"name": b.card.name, "registry": b.registry} for b in bases],
            "fetch_bytes": missing,
            "written": not dry_run,
        }
    )


def _chosen(
    state: State,
    targets: Sequence[str],
    registries: Sequence[str] | None,
    recommends: bool,
    prereleases: bool,
) -> tuple[list[PackItem], list[BaseItem]]:
    """What goes into the bundle.

    Raises:
        NotFoundError: nothing was named, and nothing is installed.
        MbpmError: as the resolver.
    """
    from mbpm import collect
    from mbpm.change.install import parse_target

    home, catalogue = state.home, state.catalogue(registries)
    if targets:
        requests = [parse_target(text) for text in targets]
        packs = collect.choose(
            home, catalogue, requests, recommends=recommends, prereleases=prereleases
        )
        return packs, collect.bases_of(home, catalogue, packs)
    packs = collect.installed_packs(home, catalogue)
    bases = collect.installed_bases(home, catalogue)
    if not bases:
        raise NotFoundError(
            "nothing is installed that could go into a bundle",
            hint="name packs: `mbpm bundle NAME --output FILE.mbundle`",
        )
    return packs, bases


def _prove(
    packs: Sequence[PackItem], bases: Sequence[BaseItem], places: Mapping[str, Path]
) -> None:
    """Find out here, and not on a machine without network, what could not be installed there."""
    from registry_index.contents import check_contents, prove_attach

    cards = {b.card.fingerprint: b.card for b in bases}
    for pack in packs:
        files = {b.path: places[b.sha256] for b in pack.manifest.blobs}
        check_contents(pack.manifest, files)
        prove_attach(pack.manifest, files, cards[pack.manifest.base.fingerprint])


def _pack(item: PackItem) -> dict[str, Any]:
    return {
        "name": item.line.name,
        "version": item.line.version,
        "manifest": item.line.manifest,
        "registry": item.registry,
        "auto": item.auto,
    }
