"""A speed limit shared by all connections of a command."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

from mbpm.fetch import limits
from specs.errors import UsageError

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?(?:/s)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}
BURST_SECONDS = 0.25
MIN_PIECE = 1024


class Rate:
    """A bucket that fills with so many bytes a second; whoever takes more than it holds waits."""

    def __init__(self, bytes_per_second: float) -> None:
        self.bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._due = 0.0
        """When everything taken so far would have come at the limit."""

    @property
    def piece(self) -> int:
        """How many bytes to read at a time, so that waits stay short."""
        return min(limits.READ_BYTES, max(MIN_PIECE, int(self.bytes_per_second / 16)))

    def take(self, count: int, wait: Callable[[float], object]) -> None:
        """Count bytes that came, and wait until they may have come."""
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now - BURST_SECONDS) + count / self.bytes_per_second
            early = self._due - now
        if early > 0:
            wait(early)


def parse_rate(text: str) -> Rate:
    """The limit written as `500k`, `2M` or plain bytes per second.

    Raises:
        UsageError: it is none of these, or less than one byte.
    """
    match = _RATE.fullmatch(text.strip())
    value = float(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    if value < 1:
        raise UsageError(
            f"`{text}` is not a rate", hint="give bytes per second, such as `500k` or `2M`"
        )
    return Rate(value)
