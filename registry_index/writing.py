"""Writing into a registry directory: one writer at a time, every file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from registry_index.contents import check_blob
from registry_index.tree import CONFIG_FILE, INDEX_DIR, Registry, blob_path, index_path
from specs.blobs import Blob
from specs.errors import DoesNotFitError, IntegrityError, MbpmError, UsageError, disk_full
from specs.index_line import RegistryConfig
from specs.names import check_name

LOCK_FILE = ".lock"
LOCK_SECONDS = 120.0
PARTS_DIR = ".parts"


@contextlib.contextmanager
def writing(root: Path, *, make: bool = False) -> Iterator[Registry]:
    """Hold the registry's lock.

    Args:
        root: The registry's directory.
        make: Whether to make a registry of it where there is none.

    Raises:
        NotFoundError: there is no registry, and none is to be made.
        MbpmError: another publisher holds the lock for too long.
        UsageError: the directory holds something else.
        DoesNotFitError: the disk is full.
    """
    import filelock

    if make:
        root.mkdir(parents=True, exist_ok=True)
    else:
        _ = Registry(root).name
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
            check_vacant(root)
            config = RegistryConfig(name=_registry_name(root))
            put_bytes(root, Path(CONFIG_FILE), config.canonical())
        yield Registry(root)
    except OSError as error:
        if disk_full(error):
            raise DoesNotFitError(
                f"{root}: the disk is full",
                hint="free some space and publish again; the index is unchanged",
            ) from None
        raise
    finally:
        shutil.rmtree(root / PARTS_DIR, ignore_errors=True)
        lock.release()


def check_vacant(root: Path) -> None:
    """Refuse to make a registry of a directory that holds other things.

    Raises:
        UsageError: it does, or is not a directory.
    """
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


def _registry_name(root: Path) -> str:
    """A registry's name made of its directory's."""
    name = re.sub(r"[^a-z0-9]+", "-", root.absolute().name.lower())[:64].strip("-")
    try:
        return check_name(name)
    except ValueError:
        return "registry"


def check_space(root: Path, needed: int) -> None:
    """Refuse what the disk cannot hold; raises DoesNotFitError."""
    free = shutil.disk_usage(root).free
    if free < needed:
        raise DoesNotFitError(
            f"{root}: the pack takes {needed:,} bytes and the disk has {free:,} free",
            hint="free some space and publish again; the index is unchanged",
        )


def put_blob(root: Path, blob: Blob, source: Path) -> None:
    """Store a file by its digest; one that is there already and sound is left alone.

    Raises:
        IntegrityError: the file is not what the blob says.
    """
    target = root / blob_path(blob.sha256)
    if target.is_file():
        with contextlib.suppress(IntegrityError):
            check_blob(blob, target)
            return
    with _replacing(root, target) as part:
        shutil.copyfile(source, part)
        if Blob.of_file(part, blob.path) != blob:
            raise IntegrityError(f"{source}: changed while it was published")


def put_bytes(root: Path, path: Path, data: bytes) -> None:
    """Write or replace the file at a path below the registry's root."""
    with _replacing(root, root / path) as part:
        part.write_bytes(data)


def put_index(root: Path, name: str, data: bytes) -> None:
    """Write or replace the index file of a pack."""
    put_bytes(root, Path(INDEX_DIR) / index_path(name), data)


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
