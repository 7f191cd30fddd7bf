"""Publishing into a registry directory: checks, gates, and a write that happens whole or not."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from registry_index import bundled
from registry_index.contents import check_blob, check_contents, find_card, prove_attach
from registry_index.tree import (
    BASES_DIR,
    CONFIG_FILE,
    INDEX_DIR,
    PackIndex,
    Registry,
    blob_path,
    index_path,
)
from specs.base_card import BaseCard
from specs.blobs import Blob
from specs.described import Described, Relations
from specs.errors import (
    DoesNotFitError,
    GateError,
    IntegrityError,
    MbpmError,
    NotFoundError,
    UsageError,
)
from specs.evals import Evals
from specs.index_line import EvalSummary, IndexLine, RegistryConfig
from specs.manifest import Manifest
from specs.names import check_name
from specs.pack_toml import Gates
from specs.versions import Version

LOCK_FILE = ".lock"
LOCK_SECONDS = 120.0
PARTS_DIR = ".parts"
MIN_GROUPS = 2
"""A bootstrap over fewer groups has no interval."""


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
    now: datetime | None = None,
) -> Release:
    """Decide whether a pack may be published, and write nothing.

    Args:
        manifest: The pack.
        files: File name in the pack -> where its bytes are.
        root: The registry's directory; it may not exist yet.
        gates: What the evals must show; any gain at all by default.
        force: Publish in spite of a failed gate, and say so in the index line. It overrides
            nothing else.
        now: The time of publication; the present by default.

    Raises:
        IntegrityError: a file is not what the manifest says, or the adapter does not attach.
        GateError: the evals show no gain and `force` is false.
        NotFoundError: neither the registry nor the program knows the base.
        MbpmError: the registry has this version already.
        UsageError: the directory holds something else than a registry.
    """
    registry = Registry(root)
    new = not (root / CONFIG_FILE).exists()
    if new:
        _check_vacant(root)
    for blob in manifest.blobs:
        check_blob(blob, files[blob.path])
    evals = check_contents(manifest, files)
    card = find_card(manifest.base, ([] if new else registry.bases()) + bundled().bases())
    modules = prove_attach(manifest, files, card)
    failed = failed_gates(evals, gates or Gates())
    if failed and not force:
        raise GateError(
            f"{manifest.name} {manifest.version} may not be published: {'; '.join(failed)}",
            hint="train it on more data, or publish it anyway with `--force`; "
            "the index will say so",
        )
    if not new:
        _check_new_version(manifest, _index(registry, manifest.name), registry)
    main = evals.metrics[0]
    line = IndexLine(
        **{
            name: getattr(manifest, name)
            for name in (*Described.model_fields, *Relations.model_fields)
        },
        base=manifest.base,
        manifest=manifest.digest(),
        manifest_size=len(manifest.canonical()),
        size=manifest.size,
        evals=EvalSummary(
            metric=main.name,
            base=main.base,
            pack=main.pack,
            higher_is_better=main.higher_is_better,
            rows=main.rows,
        ),
        published=(now or datetime.now(timezone.utc)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        forced=tuple(failed),
    )
    return Release(manifest, files, line, card.name, modules, new)


def failed_gates(evals: Evals, gates: Gates) -> list[str]:
    """The gates that the main metric fails, in words; empty when it passes."""
    main = evals.metrics[0]
    failed = []
    if not main.gain_low > gates.min_gain:
        failed.append(
            f"no gain shown on `{main.name}` (gain {main.gain:.4g}, interval "
            f"{main.gain_low:.4g} to {main.gain_high:.4g}, must begin above {gates.min_gain:.4g})"
        )
    better = main.pack > main.base if main.higher_is_better else main.pack < main.base
    if not better:
        failed.append(
            f"`{main.name}` of the pack ({main.pack:.4g}) is not better than the base's "
            f"({main.base:.4g})"
        )
    if not main.gain_low <= main.gain <= main.gain_high:
        failed.append(f"the gain on `{main.name}` lies outside its own interval")
    if main.groups < MIN_GROUPS:
        failed.append(
            f"`{main.name}` was measured on {main.groups} group, and an interval needs {MIN_GROUPS}"
        )
    return failed


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
    with _writing(root) as registry:
        index = _index(registry, manifest.name)
        _check_new_version(manifest, index, registry)
        _check_space(root, manifest.size)
        for blob in manifest.blobs:
            _put_blob(root, blob, release.files[blob.path])
        raw = manifest.canonical()
        _put_bytes(root, blob_path(release.line.manifest), raw)
        path = Path(INDEX_DIR) / index_path(manifest.name)
        old = (root / path).read_bytes() if index is not None else b""
        if old and not old.endswith(b"\n"):
            old += b"\n"
        _put_bytes(root, path, old + release.line.canonical())


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
    with _writing(root) as registry:
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
            _put_blob(root, card.file(path).blob, file)
        _put_bytes(root, Path(BASES_DIR, f"{card.name}.json"), card.canonical())


def _check_vacant(root: Path) -> None:
    if not root.exists():
        return
    if not root.is_dir():
        raise UsageError(f"{root}: is not a directory", hint="name a directory as the registry")
    others = [e.name for e in root.iterdir() if e.name not in (LOCK_FILE, PARTS_DIR)]
    if others:
        raise UsageError(
            f"{root}: holds other files (`{sorted(others)[0]}`) and is not a registry",
            hint="name a registry, an empty directory or one that does not exist yet",
        )


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


def _registry_name(root: Path) -> str:
    """A registry's name made of its directory's."""
    name = re.sub(r"[^a-z0-9]+", "-", root.absolute().name.lower())[:64].strip("-")
    try:
        return check_name(name)
    except ValueError:
        return "registry"


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[Registry]:
    """Hold the registry's lock; makes the registry where it is missing."""
    import filelock

    root.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(root / LOCK_FILE, timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise MbpmError(
            f"{root}: another publisher has held this registry for {LOCK_SECONDS:.0f} s",
            hint="wait for it to end, then publish again",
        ) from None
    try:
        # parts of a publisher that died; nobody else writes while the lock is held
        shutil.rmtree(root / PARTS_DIR, ignore_errors=True)
        if not (root / CONFIG_FILE).exists():
            _check_vacant(root)
            config = RegistryConfig(name=_registry_name(root))
            _put_bytes(root, Path(CONFIG_FILE), config.canonical())
        yield Registry(root)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DoesNotFitError(
                f"{root}: the disk is full",
                hint="free some space and publish again; the index is unchanged",
            ) from None
        raise
    finally:
        shutil.rmtree(root / PARTS_DIR, ignore_errors=True)
        lock.release()


def _check_space(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if free < needed:
        raise DoesNotFitError(
            f"{root}: the pack takes {needed:,} bytes and the disk has {free:,} free",
            hint="free some space and publish again; the index is unchanged",
        )


def _put_blob(root: Path, blob: Blob, source: Path) -> None:
    """Store a file by its digest; one that is there already and sound is left alone."""
    target = root / blob_path(blob.sha256)
    if target.is_file():
        with contextlib.suppress(IntegrityError):
            check_blob(blob, target)
            return
    with _replacing(root, target) as part:
        shutil.copyfile(source, part)
        if Blob.of_file(part, blob.path) != blob:
            raise IntegrityError(f"{source}: changed while it was published")


def _put_bytes(root: Path, path: Path, data: bytes) -> None:
    with _replacing(root, root / path) as part:
        part.write_bytes(data)


@contextlib.contextmanager
def _replacing(root: Path, target: Path) -> Iterator[Path]:
    """A part file that takes the target's place once it is whole and on the disk."""
    part = root / PARTS_DIR / uuid.uuid4().hex
    part.parent.mkdir(exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    yield part
    with part.open("rb+") as stream:
        os.fsync(stream.fileno())
    part.replace(target)
    # the new name itself must survive a power cut; Windows cannot open a folder for this
    with contextlib.suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
