"""`--auto`: a learning rate and a rank, found in short runs on a part of the data.

First the rates, from high to low by factors of about three, at the configured rank; then ranks at
the best rate. A run is as long as a part of the data takes; what counts is the held-out loss. Of
ranks whose losses differ by less than a hundredth of a nat the smallest wins.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.batches import Items
from trainer.config import TrainingConfig

RATES = (1e-2, 3e-3, 1e-3, 3e-4)
PREFERENCE_RATES = (1e-3, 3e-4, 1e-4, 3e-5)
RANKS = (4, 8, 16, 32)
STEPS = 16
"""Steps of a run."""
HELD_OUT = 64
"""Held-out items it is judged by."""
CLOSE = 0.01
"""Nats that a smaller rank may be worse."""

Try = Callable[[TrainingConfig], float | None]
"""Trains a little and gives the held-out loss; None where the loss was not a number."""


@dataclass(frozen=True)
class Tried:
    """One short run."""

    rate: float
    rank: int
    loss: float
    """Infinite where training came apart."""


def search(
    config: TrainingConfig, rates: Sequence[float], fixed: Collection[str], attempt: Try
) -> tuple[TrainingConfig, list[Tried]]:
    """The configuration with the best rate and rank, and everything that was tried.

    Alpha grows with the rank, so that its scale stays what the rates were tried with.

    Args:
        fixed: `learning_rate` or `rank`, where a person chose them.
    """
    tried: list[Tried] = []

    def run(rate: float, rank: int) -> Tried:
        for before in tried:
            if (before.rate, before.rank) == (rate, rank):
                return before
        loss = attempt(_changed(config, rate, rank))
        tried.append(Tried(rate, rank, math.inf if loss is None else loss))
        return tried[-1]

    if "learning_rate" in fixed:
        rate = config.learning_rate
    else:
        rate = min((run(r, config.rank) for r in rates), key=lambda t: t.loss).rate
    if "rank" in fixed:
        rank = config.rank
    else:
        ranks = [run(rate, r) for r in RANKS]
        best = min(t.loss for t in ranks)
        rank = min(t.rank for t in ranks if t.loss <= best + CLOSE)
    return _changed(config, rate, rank), tried


def _changed(config: TrainingConfig, rate: float, rank: int) -> TrainingConfig:
    share = math.sqrt(rank / config.rank) if config.rslora else rank / config.rank
    return config.model_copy(
        update={"learning_rate": rate, "rank": rank, "alpha": config.alpha * share}
    )


def part_of(items: Sequence[Items], tokens: int, seed: int) -> list[Items]:
    """Some of the items, drawn with the seed, of at most so many tokens; at least one."""
    order = list(items)
    random.Random(seed).shuffle(order)
    chosen: list[Items] = []
    for item in order:
        tokens -= item.size
        if tokens < 0 and chosen:
            break
        chosen.append(item)
    return chosen


def scratch(output: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder for the checkpoints of short runs, beside where the pack goes."""
    output.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=output, prefix=".auto-")
