"""`mbpm download`: packs as archives, without installing them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import DryRun, NoRecommends, Prereleases, Registries, complete_known
from mbpm.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbpm.collect import PackItem
    from mbpm.fetch import AnySource
    from specs.blobs import Blob

SCRATCH = ".mbpm-download"
"""Folder below the output for what is being fetched."""


def command(
    ctx: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET",
            help="NAME or NAME@REQUIREMENT (such as `medical@1.2`)",
            autocompletion=complete_known,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the archives go")
    ] = Path(),
    with_requires: Annotated[
        bool, typer.Option("--with-requires", help="Also the packs that these require or recommend")
    ] = False,
    no_recommends: NoRecommends = False,
    registry: Registries = None,
    pre: Prereleases = False,
    dry_run: DryRun = False,
) -> None:
    """Fetch packs as NAME-VERSION.mbpack archives, without installing anything.

    The newest version is taken, whatever is installed, and whether or not this machine can run it.
    What the store holds already is not fetched again, and what was fetched when the command was
    stopped is kept beside the archives for the next time. Bases do not come along; `mbpm bundle`
    makes one file of packs and their base.

    $ mbpm download medical legal@1.2 --output /mnt/stick
    $ mbpm install /mnt/stick/medical-0.1.0.mbpack
    """
    from mbpm.change.install import parse_target
    from mbpm.collect import bring, choose, discard, missing_bytes, scratch_store
    from mbpm.files import check_space
    from mbpm.output import size
    from registry_index.archive import archive_name, write_archive

    state: State = ctx.obj
    out = state.out
    folder = output.expanduser()
    items = choose(
        state.home,
        state.catalogue(registry),
        [parse_target(text) for text in targets],
        requires=with_requires,
        recommends=not no_recommends,
        prereleases=pre,
    )
    scratch = scratch_store(folder / SCRATCH)
    files = [folder / archive_name(i.manifest) for i in items]
    for item, file in zip(items, files, strict=True):
        out.line(f"download   {item.title} -> {file} ({size(item.manifest.size)})")
    missing = missing_bytes(state.home, scratch, items)
    out.line(f"fetch      {size(missing)}")
    document = {
        "packs": [
            {
                "name": i.line.name,
                "version": i.line.version,
                "manifest": i.line.manifest,
                "registry": i.registry,
                "file": str(f),
                "size": i.manifest.size,
            }
            for i, f in zip(items, files, strict=True)
        ],
        "fetch_bytes": missing,
    }
    if not dry_run:
        folder.mkdir(parents=True, exist_ok=True)
        items = [_reusing(i, f) for i, f in zip(items, files, strict=True)]
        places = bring(state, scratch, items)
        check_space(folder, sum(i.manifest.size for i in items), "the archives")
        for item, file in zip(items, files, strict=True):
            blobs = {b.path: places[b.sha256] for b in item.manifest.blobs}
            write_archive(item.manifest, blobs, file)
        discard(scratch)
        out.note(f"wrote {len(files)} archive{'' if len(files) == 1 else 's'}")
    out.result({**document, "written": not dry_run})


def _reusing(item: PackItem, file: Path) -> PackItem:
    """The pack, with an archive of it that is there already as its first source."""
    from mbpm.offers import ArchiveOrigin
    from registry_index.archive import read_archive
    from specs.errors import MbpmError

    def sources(blob: Blob, scratch: Path) -> Sequence[AnySource]:
        first: list[AnySource] = []
        with suppress(MbpmError, OSError):
            archive = read_archive(file)
            if archive.manifest == item.manifest:
                first = ArchiveOrigin(archive).sources(blob, scratch)
        return [*first, *item.sources(blob, scratch)]

    return replace(item, sources=sources)
