"""One blob on its way: what every kind of source needs to know."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbpm.fetch.assembly import Part
    from mbpm.fetch.network import Network
    from mbpm.output import Progress


class StoppedError(Exception):
    """Somebody else failed, or the person pressed Ctrl-C: leave, nothing is to be said."""


@dataclass(frozen=True)
class Round:
    """What the blobs fetched together share."""

    network: Network
    parts: Path
    """Where unfinished downloads live."""
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set when everybody should leave."""
    wheels: defaultdict[str, threading.Lock] = field(
        default_factory=lambda: defaultdict(threading.Lock)
    )
    """One lock per wheel: several blobs may be members of one."""


@dataclass(frozen=True)
class Job:
    """One blob and one source."""

    round: Round
    part: Part
    name: str
    """Blob and source, for messages."""
    folder: Path
    """What a relative path is relative to."""
    progress: Progress

    @property
    def network(self) -> Network:
        """The way to servers."""
        return self.round.network

    @property
    def stopped(self) -> threading.Event:
        """Set when this should end."""
        return self.round.stopped
