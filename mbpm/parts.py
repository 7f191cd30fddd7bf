"""How an evaluation goes on: a bar per part on a terminal, a line per part elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from mbpm.output import Output


class Parts(AbstractContextManager["Parts"]):
    """Called with a part's name and its rows; returns what is told of rows that are done."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._bar: Any = None

    def __call__(self, text: str, rows: int) -> Callable[[int], None]:
        self.stop()
        if self._out.mode != "human" or not sys.stderr.isatty():
            self._out.note(f"measuring {text}" + (f" ({rows:,} rows)" if rows else ""))
            return lambda done: None
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        bar = Progress(
            TextColumn("measuring {task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, no_color=self._out.no_color),
            transient=True,
        )
        task = bar.add_task(self._out.clean(text), total=rows or None)
        bar.start()
        self._bar = bar
        return lambda done: bar.advance(task, done)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __exit__(self, *details: object) -> None:
        self.stop()
