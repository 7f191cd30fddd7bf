"""One writer at a time, with a bounded wait that names who holds the lock. Readers never lock."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mbpm.files import write_atomic
from mbpm.output import Output
from specs.errors import MbpmError, UsageError

WAIT_SECONDS = 60.0
_QUIET_SECONDS = 1.0


@contextmanager
def writer_lock(home: Path, out: Output) -> Iterator[None]:
    """Hold the home's writer lock.

    Waits up to `MBPM_LOCK_TIMEOUT` seconds (60 unless set).

    Raises:
        MbpmError: somebody else still holds it; the message names the process, host and age.
    """
    from filelock import FileLock, Timeout

    wait = _wait_seconds()
    home.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(home / "lock"), home / "owner.json"
    try:
        lock.acquire(timeout=min(wait, _QUIET_SECONDS))
    except Timeout:
        out.note(f"waiting for {_describe(owner)}")
        try:
            lock.acquire(timeout=max(0.0, wait - _QUIET_SECONDS))
        except Timeout:
            raise MbpmError(
                f"{home} is being changed by {_describe(owner)}",
                hint="wait for it to end; `MBPM_LOCK_TIMEOUT` sets how many seconds to wait",
            ) from None
    try:
        value = {"pid": os.getpid(), "host": platform.node(), "since": time.time()}
        write_atomic(owner, json.dumps(value).encode())
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


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
