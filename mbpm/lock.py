"""One writer at a time, with a bounded wait that names who holds the lock. Readers never lock."""

from __future__ import annotations

import errno
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.files import no_folder, write_atomic
from specs.errors import MbpmError, UsageError

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from mbpm.folder_lock import FolderLock
    from mbpm.output import Output

WAIT_SECONDS = 60.0
_QUIET_SECONDS = 1.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system answers that knows no locks; `mbpm.folder_lock` is for those."""


@contextmanager
def writer_lock(home: Path, out: Output) -> Iterator[None]:
    """Hold the home's writer lock.

    Waits up to `MBPM_LOCK_TIMEOUT` seconds (60 unless set).

    Raises:
        MbpmError: somebody else still holds it; the message names the process, host and age.
    """
    wait = _wait_seconds()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise no_folder(home) from None
    owner = home / "owner.json"
    lock = _acquire(home, owner, wait, out)
    try:
        value = {"pid": os.getpid(), "host": platform.node(), "since": time.time()}
        # it only tells others who it is: on a full disk `gc` must work all the same
        with suppress(OSError):
            write_atomic(owner, json.dumps(value).encode())
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _acquire(home: Path, owner: Path, wait: float, out: Output) -> BaseFileLock | FolderLock:
    lock: BaseFileLock | FolderLock
    hint = "wait for it to end; `MBPM_LOCK_TIMEOUT` sets how many seconds to wait"
    if _knows_locks(home / "lock"):
        from filelock import FileLock

        lock = FileLock(home / "lock")
    else:
        from mbpm.folder_lock import FolderLock

        lock = FolderLock(home / "lock.held")
        hint += f", and where it is gone from another machine, remove {home / 'lock.held'}"
    try:
        try:
            lock.acquire(timeout=min(wait, _QUIET_SECONDS))
        except TimeoutError:
            out.note(f"waiting for {_describe(owner)}")
            lock.acquire(timeout=max(0.0, wait - _QUIET_SECONDS))
    except TimeoutError:
        raise MbpmError(f"{home} is being changed by {_describe(owner)}", hint=hint) from None
    return lock


def _knows_locks(file: Path) -> bool:
    """Whether the file system of a file, which is made, has locks."""
    try:
        import fcntl
    except ImportError:
        # those of Windows are everywhere
        return True
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_UN)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    finally:
        os.close(handle)
    return True


def _wait_seconds() -> float:
    text = os.environ.get("MBPM_LOCK_TIMEOUT")
    if not text:
        return WAIT_SECONDS
    try:
        return max(0.0, float(text))
    except ValueError:
        raise UsageError(f"`MBPM_LOCK_TIMEOUT` is {text!r}", hint="give seconds, as `30`") from None


def _describe(owner: Path) -> str:
    try:
        value = json.loads(owner.read_text())
        age = max(0, round(time.time() - value["since"]))
        return f"process {value['pid']} on {value['host']}, for {age} s"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
