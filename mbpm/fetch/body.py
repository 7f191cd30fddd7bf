"""Reading what a server sends, watched."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpcore

from mbpm.fetch import limits
from mbpm.fetch.job import StoppedError
from mbpm.fetch.retry import AgainError, explained

if TYPE_CHECKING:
    from mbpm.fetch.http import httpx
    from mbpm.fetch.rate import Rate


def body_length(response: httpx.Response) -> int | None:
    """How long a body is, as far as its headers tell."""
    text = response.headers.get("content-length", "")
    if "transfer-encoding" in response.headers or not re.fullmatch("[0-9]{1,18}", text):
        return None
    return int(text)


def pieces(
    response: httpx.Response, rate: Rate | None, stopped: threading.Event
) -> Iterator[bytes]:
    """The bytes of a body, in pieces as they come.

    A long body whose length is known is read from the connection itself: through the HTTP parser
    every byte costs more than its digest does. Such a connection is not used again.

    Raises:
        AgainError: it stalls, breaks, or is slower than `limits.MIN_RATE`.
        StoppedError: it should stop.
    """
    watch = _Watch(rate, stopped)
    size = body_length(response) or 0
    stream = response.extensions.get("network_stream") if size > limits.DIRECT_BYTES else None
    # without a size of its own the parser hands out all it holds; dropped, it would hang up
    parsed = response.iter_raw()
    came = 0
    with explained():
        while piece := next(parsed, b""):
            came += len(piece)
            if came == size:
                # seen to be over, the connection may be used again, whatever the caller does
                next(parsed, None)
            watch.saw(len(piece))
            yield piece
            watch.back()
            if stream is not None:
                break
        while stream is not None and piece and came < size:
            count = min(rate.piece if rate else limits.READ_BYTES, size - came)
            try:
                piece = stream.read(count, timeout=min(limits.POLL_SECONDS, limits.STALL_SECONDS))
            except httpcore.ReadTimeout:
                watch.saw(0)
                continue
            if not piece:
                raise AgainError("the connection was closed early")
            came += len(piece)
            watch.saw(len(piece))
            yield piece
            watch.back()


class _Watch:
    """Tells a connection that is worth waiting for from one that is not.

    Only the time spent on reading counts: not what the caller does with a piece, nor what a speed
    limit makes us wait.
    """

    def __init__(self, rate: Rate | None, stopped: threading.Event) -> None:
        self._rate, self._stopped = rate, stopped
        self._last = self._begin = self._left = time.monotonic()
        self._came = 0

    def saw(self, count: int) -> None:
        """Note that so many bytes came, none perhaps; raises as `pieces` does."""
        if self._stopped.is_set():
            raise StoppedError
        now = self._left = time.monotonic()
        if count:
            self._last = now
            self._came += count
            if self._rate is not None:
                self._rate.take(count, self._stopped.wait)
        elif now - self._last >= limits.STALL_SECONDS:
            raise AgainError(f"nothing came for {limits.STALL_SECONDS:.0f} s")
        if now - self._begin >= limits.STALL_SECONDS:
            if self._came < limits.MIN_RATE * limits.STALL_SECONDS:
                raise AgainError(f"less than {limits.MIN_RATE:.0f} bytes per second came")
            self._begin, self._came = now, 0

    def back(self) -> None:
        """Leave out the time since the last `saw`."""
        away = time.monotonic() - self._left
        self._last += away
        self._begin += away
