"""A lock for file systems that know none: a folder that only one process can put in place.

    lock.held/owner.json          who holds it
    .lock.held.PID.RANDOM/        the same on its way there, or on its way out

The folder arrives by a rename, which fails where a folder that is not empty stands already. So it
is never there without saying whose it is, and whoever finds a dead owner in it takes it away by
another rename, which one alone succeeds with.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import time
import uuid
from contextlib import suppress
from pathlib import Path

from mbpm.files import remove
from mbpm.processes import alive

POLL_SECONDS = 0.05
_OWNER = "owner.json"


class FolderLock:
    """The lock of one folder; to be released by who acquired it."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def acquire(self, timeout: float) -> None:
        """Wait for the lock.

        Raises:
            TimeoutError: somebody else still holds it after so many seconds.
            OSError: nothing can be written here.
        """
        deadline = time.monotonic() + timeout
        mine = self._beside(os.getpid())
        mine.mkdir()
        try:
            record = {"pid": os.getpid(), "host": platform.node(), "since": time.time()}
            (mine / _OWNER).write_text(json.dumps(record))
            while not self._put(mine):
                if not self._take_from_the_dead() and time.monotonic() >= deadline:
                    raise TimeoutError(f"{self._place} is held")
                time.sleep(POLL_SECONDS)
        except BaseException:
            remove(mine)
            raise
        self._sweep()

    def release(self) -> None:
        """Give it up; it is gone at once."""
        away = self._beside(os.getpid())
        with suppress(OSError):
            self._place.rename(away)
        remove(away)

    def _put(self, mine: Path) -> bool:
        try:
            mine.rename(self._place)
        except OSError as error:
            # Windows says of a folder that is there that access is denied
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY) or os.name == "nt":
                return False
            raise
        return True

    def _take_from_the_dead(self) -> bool:
        """Whether the lock was taken from an owner who does not live any more."""
        found = _read(self._place)
        if found is None or not _dead(found):
            return False
        away = self._beside(os.getpid())
        try:
            self._place.rename(away)
        except OSError:
            return False
        if _read(away) != found:
            # somebody else was first, and this is the one who came after: it goes back
            with suppress(OSError):
                away.rename(self._place)
            return False
        remove(away)
        return True

    def _sweep(self) -> None:
        """Remove what processes left that were killed while they came or went."""
        for path in self._place.parent.glob(f".{self._place.name}.*"):
            pid = path.name.split(".")[-2]
            with suppress(OSError):
                if pid.isdecimal() and not alive(int(pid), path.stat().st_mtime):
                    remove(path)

    def _beside(self, pid: int) -> Path:
        return self._place.with_name(f".{self._place.name}.{pid}.{uuid.uuid4().hex}")


def _read(place: Path) -> tuple[int, str, float] | None:
    """Who holds a lock; None where that cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        value = json.loads((place / _OWNER).read_bytes())
        return int(value["pid"]), str(value["host"]), float(value["since"])
    return None


def _dead(owner: tuple[int, str, float]) -> bool:
    pid, host, since = owner
    return host == platform.node() and not alive(pid, since)
