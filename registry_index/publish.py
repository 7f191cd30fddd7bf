"""Publishing into a registry directory: checks, gates, and a write that happens whole or not."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from registry_index import bundled
from registry_index.contents import check_blob, check_contents, find_card, prove_attach
from registry_index.gates import failed_gates, told_gates, unmeasured
from registry_index.summarising import changing
from registry_index.tree import BASES_DIR, CONFIG_FILE, PackIndex, Registry, blob_path
from registry_index.writing import (
    check_space,
    check_vacant,
    put_blob,
    put_bytes,
    put_index,
    writing,
)
from specs.base_card import BaseCard
from specs.described import Described, Relations
from specs.errors import GateError, MbpmError, NotFoundError
from specs.index_line import MAX_FORCED, EvalSummary, IndexLine
from specs.manifest import EVALS_FILE, Manifest
from specs.pack_toml import Gates
from specs.versions import Version

_ANYWAY = "publish it anyway with `--force`; the index will say so"
_HOW_TO_PASS = (
    "train it on more or cleaner data, import it with `--data` so that its routing is calibrated, "
    f"relax a bound under `[gates]` in pack.toml, or {_ANYWAY}"
)


@dataclass(frozen=True)
class Release:
    """A pack that passed every check and may be written into a registry."""

    manifest: Manifest
    files: Mapping[str, Path]
    line: IndexLine
    """What the index will say."""
    base: str
    """The name of the base the adapter was checked against."""
    modules: int
    """How many modules of the base the adapter attaches to."""
    new_registry: bool
    """Whether the registry does not exist yet."""


def check_release(
    manifest: Manifest,
    files: Mapping[str, Path],
    root: Path,
    *,
    gates: Gates | None = None,
    force: bool = False,
    publisher: str = "",
    now: datetime | None = None,
) -> Release:
    """Decide whether a pack may be published, and write nothing.

    Args:
        manifest: The pack.
        files: File name in the pack -> where its bytes are.
        root: The registry's directory; it may not exist yet.
        gates: What the evals must show; the defaults of `specs.pack_toml.Gates` without them. What
            fails a default under a laxer bound is published, and the index line says so.
        force: Publish in spite of a failed gate, and say so in the index line. It overrides
            nothing else.
        publisher: Who publishes it, for the index line.
        now: The time of publication; the present by default.

    Raises:
        IntegrityError: a file is not what the manifest says, or the adapter does not attach.
        GateError: a gate failed and `force` is false; `details["failed"]` has the reasons.
        NotFoundError: neither the registry nor the program knows the base.
        MbpmError: the registry has this version already.
        UsageError: the directory holds something else than a registry.
    """
    registry = Registry(root)
    new = not (root / CONFIG_FILE).exists()
    if new:
        check_vacant(root)
    for blob in manifest.blobs:
        check_blob(blob, files[blob.path])
    evals = check_contents(manifest, files)
    card = find_card(manifest.base, ([] if new else registry.bases()) + bundled().bases())
    modules = prove_attach(manifest, files, card)
    gates = gates or Gates()
    failed = failed_gates(evals, gates)
    if failed and not force:
        raise GateError(
            f"{manifest.name} {manifest.version} may not be published: {'; '.join(failed)}",
            hint=_how_to_measure(files) if unmeasured(evals) else _HOW_TO_PASS,
            details={"failed": failed},
        )
    if not new:
        _check_new_version(manifest, _index(registry, manifest.name), registry)
    main = evals.metrics[0] if evals.metrics else None
    line = IndexLine(
        **{
            name: getattr(manifest, name)
            for name in (*Described.model_fields, *Relations.model_fields)
        },
        base=manifest.base,
        manifest=manifest.digest(),
        manifest_size=len(manifest.canonical()),
        size=manifest.size,
        evals=None
        if main is None
        else EvalSummary(
            metric=main.name,
            base=main.base,
            pack=main.pack,
            higher_is_better=main.higher_is_better,
            rows=main.rows,
        ),
        published=(now or datetime.now(timezone.utc)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        publisher=publisher,
        forced=tuple(told_gates(evals, gates)[:MAX_FORCED]),
    )
    return Release(manifest, files, line, card.name, modules, new)


def _how_to_measure(files: Mapping[str, Path]) -> str:
    folder = files[EVALS_FILE].parent
    return f"`mbpm eval {folder} --save` measures what is missing; or {_ANYWAY}"


def publish(release: Release, root: Path) -> None:
    """Write a checked pack into a registry: the blobs first, its index line last.

    A process that dies on the way leaves the old index and perhaps blobs that nothing names yet.
    Publishers of one registry wait for one another; readers are never held up.

    Raises:
        MbpmError: another publisher was faster with this version, or holds the registry too long.
        DoesNotFitError: too little disk.
        IntegrityError: a file changed since it was checked.
    """
    manifest = release.manifest
    with writing(root, make=True) as registry:
        index = _index(registry, manifest.name)
        _check_new_version(manifest, index, registry)
        check_space(root, manifest.size)
        for blob in manifest.blobs:
            put_blob(root, blob, release.files[blob.path])
        raw = manifest.canonical()
        put_bytes(root, blob_path(release.line.manifest), raw)
        old = registry.raw_index(manifest.name) if index is not None else b""
        if old and not old.endswith(b"\n"):
            old += b"\n"
        with changing(registry, manifest.name):
            put_index(root, manifest.name, old + release.line.canonical())


def publish_base(card: BaseCard, root: Path, files: Mapping[str, Path] | None = None) -> None:
    """Write a base card into a registry, with files of the base the registry itself serves.

    Args:
        card: The base.
        root: The registry's directory, made where it is missing.
        files: File name in the base -> where its bytes are, for those to store as blobs.

    Raises:
        MbpmError: the registry has another base of this name.
        IntegrityError: a file is not what the card says.
    """
    with writing(root, make=True) as registry:
        try:
            old = registry.base(card.name)
        except NotFoundError:
            old = card
        if old.fingerprint != card.fingerprint:
            raise MbpmError(
                f"the registry `{registry.name}` has another base named `{card.name}` "
                f"({old.fingerprint[:12]})",
                hint="give this one another name; packs already name the old one",
            )
        for path, file in (files or {}).items():
            put_blob(root, card.file(path).blob, file)
        with changing(registry):
            put_bytes(root, Path(BASES_DIR, f"{card.name}.json"), card.canonical())


def _index(registry: Registry, name: str) -> PackIndex | None:
    try:
        return registry.index(name)
    except NotFoundError:
        return None


def _check_new_version(manifest: Manifest, index: PackIndex | None, registry: Registry) -> None:
    if index is None:
        return
    version = Version(manifest.version)
    for text in [*(line.version for line in index.lines), *index.newer]:
        with contextlib.suppress(ValueError):
            if Version(text) == version:
                raise MbpmError(
                    f"{manifest.name} {text} is already in the registry `{registry.name}`",
                    hint="a published version never changes; raise `version` in pack.toml",
                )
