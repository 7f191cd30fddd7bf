"""The learning rate over a run, as a share of its peak."""

from __future__ import annotations

import math
from typing import Protocol

from trainer.config import Schedule


class Scheduled(Protocol):
    """Settings that say how the rate goes."""

    @property
    def warmup(self) -> float:
        """Share of the steps in which it rises."""

    @property
    def schedule(self) -> Schedule:
        """How it falls after."""


def rate(config: Scheduled, step: int, steps: int) -> float:
    """The share of the peak in step `step` (from 0) of `steps`: a rise, then the schedule."""
    warmup = max(1, round(config.warmup * steps))
    rise = min(1.0, (step + 1) / warmup)
    left = min(1.0, (steps - step) / max(1, steps - warmup))
    if config.schedule == "constant":
        return rise
    if config.schedule == "cosine":
        return min(rise, (1 - math.cos(math.pi * left)) / 2)
    return min(rise, left)
