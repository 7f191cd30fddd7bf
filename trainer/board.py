"""TensorBoard event files, where they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specs.errors import UsageError


class Board:
    """Writes what every step reports; a folder that TensorBoard reads."""

    def __init__(self, folder: Path) -> None:
        """Raises:
        UsageError: the package `tensorboard` is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError(
                "`--tensorboard` needs the package `tensorboard`, which is not installed",
                hint="`pip install 'mbpm[tensorboard]'`",
            ) from None
        self._writer: Any = SummaryWriter(str(folder))

    def step(self, report: Any) -> None:
        """Write a `trainer.loop.StepReport`."""
        values = {
            "loss/step": report.loss,
            "learning_rate": report.learning_rate,
            "gradient_norm": report.gradient_norm,
            "tokens_per_second": report.tokens_per_second,
        }
        if report.held_out is not None:
            values["loss/held_out"] = report.held_out
        for name, value in values.items():
            self._writer.add_scalar(name, value, report.step)

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()
