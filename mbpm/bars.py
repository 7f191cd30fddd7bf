"""Bars on a terminal: one for each thing being fetched, and one for all where they are many."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Rich

from mbpm.output import Progress, Transfers

_MANY = 4
"""From more titles than this on there is a bar for all together."""


@contextmanager
def bars(
    totals: Mapping[str, int], clean: Callable[[str], str], no_color: bool
) -> Iterator[Transfers]:
    """See `Output.transfers`; `clean` makes text fit for the terminal."""
    console = Console(stderr=True, no_color=no_color, markup=False)
    with Rich(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        console=console,
        transient=True,
    ) as rich:
        yield _Bars(rich, totals, clean)


class _Bars:
    def __init__(self, rich: Rich, totals: Mapping[str, int], clean: Callable[[str], str]) -> None:
        self._rich, self._clean = rich, clean
        self._lock = threading.Lock()
        self._working: Counter[str] = Counter()
        self._alone = len(totals) == 1
        self._tasks = {
            title: rich.add_task(title, total=total, status="", visible=False)
            for title, total in totals.items()
        }
        self._all: TaskID | None = None
        if len(totals) > _MANY:
            self._all = rich.add_task("all", total=sum(totals.values()), status="")

    @contextmanager
    def file(self, title: str, what: str, total: int) -> Iterator[Progress]:
        title = self._clean(title)
        with self._lock:
            self._working[title] += 1
            self._rich.update(self._tasks[title], visible=True)
        try:
            yield _Bar(self._rich, self._tasks[title], self._all, self._clean)
        finally:
            with self._lock:
                self._working[title] -= 1
                if not self._working[title] and not self._alone:
                    self._rich.update(self._tasks[title], visible=False)


class _Bar:
    def __init__(
        self, rich: Rich, task: TaskID, all_task: TaskID | None, clean: Callable[[str], str]
    ) -> None:
        self._rich, self._task, self._all, self._clean = rich, task, all_task, clean

    def advance(self, count: int) -> None:
        self._rich.advance(self._task, count)
        if self._all is not None:
            self._rich.advance(self._all, count)

    def status(self, text: str) -> None:
        self._rich.update(self._task, status=self._clean(text))
