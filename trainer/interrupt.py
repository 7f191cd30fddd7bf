"""Ctrl-C, and a job that is ended, between steps instead of in the middle of one, so that a
checkpoint is always whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Remember the first interruption; a second one ends the program at once.

    Yields:
        Whether there was one. Outside the main thread, and where somebody else handles the signal,
        nothing is held back.
    """
    seen = False
    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and all(signal.getsignal(n) is handler for n, handler in usual.items())

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen = True
        restore()

    def restore() -> None:
        for which, handler in usual.items():
            signal.signal(which, handler)

    if ours:
        for which in usual:
            signal.signal(which, remember)
    try:
        yield lambda: seen
    finally:
        if ours:
            restore()
