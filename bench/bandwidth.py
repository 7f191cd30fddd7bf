"""How fast this process reads memory: what decoding can reach at most."""

from __future__ import annotations

import threading
import time
from statistics import median

import numpy as np

from runtime.engine import F32

BYTES_PER_THREAD = 192 * 1024 * 1024
"""Several times what a cache holds."""
PASSES = 5


def read_bandwidth(threads: int) -> float:
    """Bytes per second of `threads` threads that each read an array of their own, the median pass.

    A dot product of float32 with a short vector that stays in the cache: it reads each byte once,
    and NumPy gives up the interpreter lock for it.
    """
    arrays = [np.ones(BYTES_PER_THREAD // 4, np.float32).reshape(-1, 1024) for _ in range(threads)]
    short = np.ones(1024, np.float32)
    speeds = []
    for _ in range(PASSES):
        barrier = threading.Barrier(threads + 1)
        done = [threading.Thread(target=_read, args=(a, short, barrier)) for a in arrays]
        for thread in done:
            thread.start()
        barrier.wait()
        start = time.perf_counter()
        for thread in done:
            thread.join()
        speeds.append(threads * BYTES_PER_THREAD / (time.perf_counter() - start))
    return median(speeds)


def _read(array: F32, short: F32, barrier: threading.Barrier) -> None:
    barrier.wait()
    array @ short
