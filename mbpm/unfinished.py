"""Downloads that were begun and not finished."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specs.errors import MbpmError

if TYPE_CHECKING:
    from pathlib import Path

    from mbpm.home import Home


@dataclass(frozen=True)
class Download:
    """One part file, or a wheel that is kept for what is in it."""

    path: Path
    key: str
    """The digest of its blob, or the name of a wheel."""
    what: str
    """What it is a file of, where that is known."""
    size: int
    """Bytes on disk."""
    idle_seconds: float
    busy: bool
    """Whether another process may be at work on it."""


def downloads(home: Home) -> list[Download]:
    """Every unfinished download of a home, the largest first."""
    from mbpm.fetch.parts import on_disk, unfinished

    parts = home.store.parts
    free = {u.path for u in unfinished(parts)}
    names, found = dict(_names(home)), []
    # a finished wheel waits until the blob that is in it is done
    for path in [*parts.glob("*.part"), *parts.glob("*.whl")]:
        with suppress(OSError):
            idle = max(0.0, time.time() - path.stat().st_mtime)
            wheel = path.suffix == ".whl"
            key = path.name if wheel else path.name.rsplit(".", 4)[0]
            busy = not wheel and path not in free
            found.append(Download(path, key, names.get(key, ""), on_disk(path), idle, busy))
    return sorted(found, key=lambda d: (-d.size, d.path))


def _names(home: Home) -> Iterator[tuple[str, str]]:
    """Digests of blobs and what they are, as far as it can be told without a network."""
    from mbpm.owners import owners
    from registry_index import bundled

    for card in bundled().bases():
        for file in card.files:
            yield file.blob.sha256, f"{file.blob.path} of base {card.name}"
    # a home that cannot be read must not hide what lies around in it
    with suppress(MbpmError):
        for owner in owners(home):
            for owned in owner.files:
                yield owned.sha256, f"{owned.name} of {owner.title}"
