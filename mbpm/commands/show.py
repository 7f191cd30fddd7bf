"""`mbpm show`: one pack in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbpm.options import Registries
from mbpm.state import State
from specs.errors import NotFoundError

if TYPE_CHECKING:
    from mbpm.catalogue import Candidate
    from specs.evals import Evals
    from specs.generation import InstalledPack
    from specs.manifest import Manifest


def command(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A pack, installed or in the registry")],
    registry: Registries = None,
) -> None:
    """Show what a pack is for, how well it does, what it is made of and its versions.

    The installed version is shown where there is one, else the newest.
    """
    from specs.manifest import EVALS_FILE

    state: State = ctx.obj
    installed = state.home.current().pack(name)
    catalogue = state.catalogue(registry)
    try:
        offers = catalogue.candidates(name)
    except NotFoundError:
        if installed is None:
            raise
        offers = ()
    if installed is not None:
        manifest = state.home.store.manifest(installed.manifest)
        evals_file = state.home.pack_dir(installed) / EVALS_FILE
    else:
        best = _newest(name, offers)
        manifest = best.manifest()
        assert best.origin is not None
        evals_file = _local(best, manifest, EVALS_FILE)
    from specs.evals import Evals

    evals = Evals.read(evals_file)
    versions = [
        {"version": c.line.version, "published": c.line.published, "yanked": c.line.yanked}
        for c in sorted(offers, key=lambda c: c.version, reverse=True)
    ]
    state.out.result(
        {
            "installed": installed.model_dump(mode="json") if installed else None,
            "manifest": manifest.model_dump(mode="json"),
            "digest": manifest.digest(),
            "evals": evals.model_dump(mode="json"),
            "versions": versions,
        }
    )
    _print(state, manifest, evals, installed, versions)


def _newest(name: str, offers: Sequence[Candidate]) -> Candidate:
    usable = [c for c in offers if not c.line.yanked] or offers
    if not usable:
        raise NotFoundError(
            f"every version of `{name}` needs a newer mbpm",
            hint="upgrade mbpm: `pip install --upgrade mbpm`",
        )
    stable = [c for c in usable if not c.version.prerelease]
    return max(stable or usable, key=lambda c: c.version)


def _local(candidate: Candidate, manifest: Manifest, path: str) -> Any:
    """A small file of a pack in a registry, its digest checked."""
    from pathlib import Path

    from registry_index.contents import check_blob
    from specs.blobs import FileSource

    assert candidate.origin is not None
    blob = manifest.blob(path)
    (source, *_) = candidate.origin.sources(blob, Path())
    assert isinstance(source, FileSource)
    file = Path(source.path)
    if not file.is_file():
        raise NotFoundError(f"{file}: the registry lacks {path} of {manifest.name}")
    check_blob(blob, file)
    return file


def _print(
    state: State,
    manifest: Manifest,
    evals: Evals,
    installed: InstalledPack | None,
    versions: list[dict[str, Any]],
) -> None:
    from mbpm.output import size

    out = state.out
    adapter = manifest.adapter
    out.line(f"{manifest.name} {manifest.version}: {manifest.description}")
    out.line()
    rows = [
        ("domain", manifest.domain),
        ("licence", manifest.license),
        ("base", f"{manifest.base.name} ({manifest.base.fingerprint[:12]})"),
        (
            "adapter",
            f"rank {adapter.rank}, {adapter.modules} modules, acts on {adapter.activation}",
        ),
        ("size", size(manifest.size)),
        ("digest", manifest.digest()),
        ("installed", f"yes, from {installed.registry}" if installed else "no"),
    ]
    for label, relations in (
        ("requires", manifest.requires),
        ("recommends", manifest.recommends),
        ("conflicts", manifest.conflicts),
    ):
        if relations:
            rows.append((label, ", ".join(f"{n} {r}" for n, r in relations.items())))
    rows += [("data", f"{s.name} {s.version} ({s.license})") for s in manifest.sources]
    for label, text in rows:
        out.line(f"{label:<11}{text}")
    out.line()
    for metric in evals.metrics:
        out.line(
            f"{metric.name}: {metric.base:.4g} -> {metric.pack:.4g}, gain {metric.gain:.4g} "
            f"({metric.gain_low:.4g} to {metric.gain_high:.4g}), {metric.rows} held-out rows"
        )
    if (routing := evals.routing) is not None:
        out.line(
            f"routing: accepts {routing.recall:.1%} of its own prompts and "
            f"{routing.false_fires:.1%} of others"
        )
    if versions:
        out.line()
        texts = [v["version"] + (" (yanked)" if v["yanked"] else "") for v in versions]
        out.line(f"versions   {', '.join(texts)}")
