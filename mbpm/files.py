"""Small file operations that either happen whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from specs.errors import DoesNotFitError, UsageError

PARTIAL = ".partial"
SPARE_BYTES = 32 * 1024 * 1024
"""What is left free beside the bytes a command needs."""


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, through a temporary file beside it; durable once this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace(source: Path, target: Path) -> None:
    """Rename over `target` atomically and make the rename durable."""
    source.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, where the system knows how."""
    # Windows cannot open a folder; there the rename itself is journaled.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` hold the bytes of `source`: a hard link, or a copy where links do not work."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        with target.open("r+b") as stream:
            os.fsync(stream.fileno())


def make_read_only(file: Path) -> None:
    """Protect a file of the store from being edited by accident, where the system knows how."""
    with contextlib.suppress(OSError):
        file.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)


def remove(path: Path) -> None:
    """Remove a file or folder; fine when it is not there, or (on Windows) still open elsewhere."""

    def writable_again(call: Callable[[str], object], name: str, _error: object) -> None:
        with contextlib.suppress(OSError):
            Path(name).chmod(stat.S_IRWXU)
            call(name)

    if path.is_dir() and not path.is_symlink():
        if sys.version_info >= (3, 12):
            shutil.rmtree(path, onexc=writable_again)
        else:
            shutil.rmtree(path, onerror=writable_again)
        return
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        writable_again(os.unlink, str(path), None)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into that becomes `folder`, which is empty or not there, once all is well.

    After an error nothing is left; what a killed process left is removed by the next. A folder that
    is there is written in itself: it may be where another disk is mounted.
    """
    folder = folder.resolve()
    inside, moved = folder.is_dir(), list[Path]()
    partial = folder / PARTIAL if inside else folder.with_name(f".{folder.name}{PARTIAL}")
    remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        if not inside:
            replace(partial, folder)
            return
        for file in partial.iterdir():  # the folder itself stays: somebody may stand in it
            moved.append(folder / file.name)
            replace(file, moved[-1])
        partial.rmdir()
    except BaseException:
        for path in (partial, *moved):
            remove(path)
        raise


def is_free(folder: Path) -> bool:
    """Whether `whole_folder` can make this one: it is empty, or not there."""
    if not folder.is_dir():
        return not os.path.lexists(folder)
    return all(inside.name == PARTIAL for inside in folder.iterdir())


def recordable(path: Path) -> Path:
    """Return a path that can be written down in a record.

    Raises:
        UsageError: its bytes are not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise UsageError(
            f"{shown}: is not UTF-8, so it cannot be recorded", hint="give it another name"
        ) from None
    return path


def no_folder(path: Path) -> UsageError:
    """What to raise where a folder cannot be made or read because something else is in its way."""
    hint = "use another with `--home DIR`"
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            return UsageError(
                f"{place}: links to {place.readlink()}, which is not there", hint=hint
            )
        if place.exists() and not place.is_dir():
            return UsageError(f"{place}: is not a directory", hint=hint)
    return UsageError(f"{path}: cannot be made a directory", hint=hint)


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse what the disk of `folder` (which need not exist yet) cannot hold.

    Raises:
        DoesNotFitError: fewer than `needed` bytes and a little more are free.
    """
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed and needed + SPARE_BYTES > free:
        from mbpm.output import size

        raise DoesNotFitError(
            f"{purpose} needs {size(needed)} on the disk of {folder}, and {size(free)} are free",
            hint="free some space, or put the home elsewhere with `--home DIR`",
        )
