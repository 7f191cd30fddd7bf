"""How training goes on, for whoever waits."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from mbpm.parts import Parts

if TYPE_CHECKING:
    from mbpm.output import Output
    from trainer.loop import StepReport
    from trainer.scoring import Tick

PLAIN_SECONDS = 10.0
"""How often a line is printed where there is no terminal."""


class TrainingProgress(AbstractContextManager["TrainingProgress"]):
    """A bar with loss, speed and time left on a terminal; a line now and then elsewhere."""

    def __init__(self, out: Output) -> None:
        self.out = out
        self.bar: Any = None
        self.task: Any = None
        self.said = 0.0
        self.losses: list[float] = []
        self._parts = Parts(out)
        self.live = out.mode == "human" and sys.stderr.isatty()

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        steps = len(self.losses)
        self._stop()
        if kind is KeyboardInterrupt and steps:
            self.out.note("stopped; a checkpoint stands, and the same command goes on from there")

    def _stop(self) -> None:
        self._parts.stop()
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        if len(self.losses) > 1:
            first, last = self.losses[0], self.losses[-1]
            self.out.note(f"loss {first:.3f} {self._curve()} {last:.3f}")
        self.losses = []

    def _curve(self) -> str:
        from mbpm.sparkline import sparkline

        return sparkline(self.losses, encoding=sys.stderr.encoding)

    def stage(self, text: str) -> None:
        self._stop()
        self.out.note(text)
        if self.live and text == "training":
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                TextColumn("loss {task.fields[loss]:.3f} {task.fields[curve]}"),
                TextColumn("{task.fields[speed]:.0f} tok/s"),
                TimeRemainingColumn(),
                console=Console(stderr=True, no_color=self.out.no_color),
            )
            self.task = self.bar.add_task("", total=1, epoch=1, loss=0.0, curve="", speed=0.0)

    def part(self, text: str, rows: int) -> Tick:
        self._stop()
        return self._parts(text, rows)

    def step(self, report: StepReport) -> None:
        self.losses.append(report.loss)
        if self.bar is not None:
            self.bar.update(
                self.task,
                total=report.steps,
                completed=report.step,
                epoch=report.epoch,
                loss=report.loss,
                curve=self._curve(),
                speed=report.tokens_per_second,
            )
            if not self.bar.live.is_started:
                self.bar.start()
        elif time.monotonic() - self.said > PLAIN_SECONDS or report.step == report.steps:
            self.said = time.monotonic()
            self.out.note(
                f"step {report.step}/{report.steps}, loss {report.loss:.3f}, "
                f"{report.tokens_per_second:.0f} tok/s, {report.seconds_left:.0f} s left"
            )
        if report.held_out is not None:
            text = f"epoch {report.epoch}: held-out loss {report.held_out:.4f}"
            if self.bar is not None:
                self.bar.console.print(text, highlight=False, markup=False)
            else:
                self.out.note(text)
