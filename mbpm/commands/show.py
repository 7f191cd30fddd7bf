"""`mbpm show`: one pack in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import Registries, complete_known
from mbpm.state import State
from specs.errors import AuthError, NetworkError, NotFoundError, UsageError
from specs.names import check_name
from specs.versions import Requirement, Version

if TYPE_CHECKING:
    from mbpm.catalogue import Candidate
    from specs.evals import Evals
    from specs.generation import InstalledPack
    from specs.index_line import IndexLine
    from specs.manifest import Manifest


def command(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="A pack, installed or in a registry; `NAME@REQUIREMENT` for another version",
            autocompletion=complete_known,
        ),
    ],
    registry: Registries = None,
) -> None:
    """Show what a pack is for, how well it does, what it is made of and its versions.

    The installed version is shown where there is one, else the newest; with a requirement, the
    newest version that meets it.

    $ mbpm show medical
    $ mbpm show legal@=1.2.0
    $ mbpm show legal --registry team --json
    """
    from specs.evals import Evals
    from specs.manifest import EVALS_FILE

    state: State = ctx.obj
    name, wanted = _parse(name)
    installed = state.home.current().pack(name)
    if (
        installed is not None
        and wanted is not None
        and not wanted.admits(Version(installed.version), prereleases=True)
    ):
        installed = None
    offers = _offers(state, name, registry, needed=installed is None)
    if installed is not None:
        manifest = state.home.store.manifest(installed.manifest)
        label = installed.registry
        evals = Evals.read(state.home.pack_dir(installed) / EVALS_FILE)
    else:
        best = _newest(name, offers, wanted)
        assert best.origin is not None
        manifest, label = best.manifest(), best.origin.label
        blob, store = manifest.blob(EVALS_FILE), state.home.store
        here = store.blob_path(blob.sha256).read_bytes() if store.has(blob) else None
        evals = Evals.parse(here or best.origin.document(blob), f"{EVALS_FILE} of {name}")
    lines = [c.line for c in sorted(offers, key=lambda c: c.version, reverse=True)]
    line = next((x for x in lines if x.manifest == manifest.digest()), None)
    versions = [
        {
            "version": x.version,
            "published": x.published,
            "publisher": x.publisher,
            "yanked": x.yanked,
            "deprecated": x.deprecated,
        }
        for x in lines
    ]
    state.out.result(
        {
            "installed": installed.model_dump(mode="json") if installed else None,
            "registry": label,
            "manifest": manifest.model_dump(mode="json"),
            "digest": manifest.digest(),
            "evals": evals.model_dump(mode="json"),
            "forced": list(line.forced) if line is not None else [],
            "versions": versions,
        }
    )
    _print(state, manifest, evals, installed, label, line, lines)


def _offers(
    state: State, name: str, registry: Sequence[str] | None, *, needed: bool
) -> Sequence[Candidate]:
    """What registries have of the pack; one that is installed is shown without them too."""
    try:
        return state.catalogue(registry).candidates(name)
    except NotFoundError:
        if needed:
            raise
    except (NetworkError, AuthError) as error:
        if needed:
            raise
        state.out.warn(f"{error.message}; other versions are not listed")
    return ()


def _parse(text: str) -> tuple[str, Requirement | None]:
    name, at, requirement = text.partition("@")
    try:
        check_name(name)
        return name, Requirement(requirement) if at else None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _newest(name: str, offers: Sequence[Candidate], wanted: Requirement | None) -> Candidate:
    from registry_index.summary import newest_line

    if wanted is not None:
        fitting = [c for c in offers if wanted.admits(c.version)]
        if not fitting:
            raise NotFoundError(
                f"no version of `{name}` is `{wanted}`", hint=f"`mbpm show {name}` lists them"
            )
        offers = fitting
    newest = newest_line(c.line for c in offers)
    return next(c for c in offers if c.line is newest)


def _print(
    state: State,
    manifest: Manifest,
    evals: Evals,
    installed: InstalledPack | None,
    label: str,
    line: IndexLine | None,
    lines: Sequence[IndexLine],
) -> None:
    from mbpm.output import size
    from mbpm.registries.config import display_names
    from specs.manifest import ADAPTER_FILE

    out = state.out
    label = display_names(state.home.path, [label])[label]
    adapter = manifest.adapter
    out.line(f"{manifest.name} {manifest.version}: {_flat(manifest.description)}")
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
        ("memory", f"{size(manifest.blob(ADAPTER_FILE).size)} when resident, beside the base"),
        ("digest", manifest.digest()),
        ("installed", f"yes, from {label}" if installed else "no"),
    ]
    if not installed:
        rows.append(("from", label))
    if line is not None and line.publisher:
        rows.append(("publisher", line.publisher))
    if line is not None and line.deprecated:
        rows.append(("deprecated", line.deprecated))
    for title, relations in (
        ("requires", manifest.requires),
        ("recommends", manifest.recommends),
        ("conflicts", manifest.conflicts),
        ("replaces", manifest.replaces),
    ):
        if relations:
            rows.append((title, ", ".join(f"{n} {r}" for n, r in relations.items())))
    if manifest.provides:
        rows.append(("provides", ", ".join(manifest.provides)))
    rows += [("data", f"{s.name} {s.version} ({s.license})") for s in manifest.sources]
    for title, text in rows:
        out.line(f"{title:<11}{_flat(text)}")
    out.line()
    for metric in evals.metrics:
        chance = "" if metric.baseline is None else f", chance {metric.baseline:.3g}"
        out.line(
            f"{_flat(metric.name)}: {metric.base:.4g} -> {metric.pack:.4g}, gain {metric.gain:.4g} "
            f"({metric.gain_low:.4g} to {metric.gain_high:.4g}), {metric.rows} held-out rows"
            f"{chance}"
        )
    if not evals.metrics:
        out.line("nothing was measured of it")
    if (routing := evals.routing) is not None:
        out.line(
            f"routing: accepts {routing.recall:.1%} of its own prompts and "
            f"{routing.false_fires:.1%} of others"
        )
    if (off := evals.off_domain) is not None:
        out.line(
            f"elsewhere: moves the base by {off.routed.mean:.3g} nats per token on general prompts "
            f"where the router decides, {off.active.mean:.3g} where it is always active"
        )
    for reason in line.forced if line is not None else ():
        out.warn(f"published in spite of a failed gate: {_flat(reason)}")
    if lines:
        out.line()
        texts = [x.version + (" (yanked)" if x.yanked else "") for x in lines]
        out.line(f"versions   {', '.join(texts)}")


def _flat(text: str) -> str:
    """Words of a pack on one line, so that none of them pass for a line of ours."""
    return " ".join(text.split())
