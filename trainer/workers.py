"""Threads that each run a part of a step on processor cores of their own.

Two threads that share every matrix product wait for each other thousands of times a second, and
where one loses its core to another program both stand still. Workers meet once per matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from types import TracebackType
from typing import TypeVar

import torch

MOST = 4
"""Workers at most; each has several cores where there are more."""
In = TypeVar("In")
Out = TypeVar("Out")


def cores_for(device: torch.device, cores: int) -> int:
    """Cores that workers share: on CUDA one, since one thread keeps the device busy."""
    return cores if device.type == "cpu" else 1


class Workers:
    """A fixed number of threads, each with an equal share of the cores."""

    def __init__(self, cores: int) -> None:
        self.count = max(1, min(cores, MOST))
        self._before = torch.get_num_threads()
        threads = max(1, cores // self.count)
        self._pool = ThreadPoolExecutor(
            self.count, "worker", initializer=torch.set_num_threads, initargs=(threads,)
        )

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._before)

    def map(
        self, function: Callable[[In], Out], items: Sequence[In], on_failure: Callable[[], None]
    ) -> list[Out]:
        """Call `function` for every item; results in order.

        Args:
            on_failure: lets workers that wait for a failed one go.

        Raises:
            The first error of any call.
        """
        futures = [self._pool.submit(function, item) for item in items]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future in done and (error := future.exception()) is not None:
                    raise error
        except BaseException:
            on_failure()
            for future in futures:
                future.cancel()
            wait(futures)
            raise
        return [future.result() for future in futures]
