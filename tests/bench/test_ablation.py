"""`python -m bench.ablation`: what its table says of a log."""

from __future__ import annotations

from bench.ablation import DEFAULTS, FACTORS, table
from trainer.config import TrainingConfig


def test_runs_are_compared_with_the_defaults_of_the_same_seed() -> None:
    log = [
        {"factor": DEFAULTS, "seed": 0, "held_out": 1.0},
        {"factor": DEFAULTS, "seed": 1, "held_out": 2.0},
        {"factor": "rank 4", "seed": 1, "held_out": 2.25},
        {"factor": "rsLoRA", "seed": 0, "held_out": 0.5},
        {"factor": "rsLoRA", "seed": 1, "held_out": 2.5},
        {"factor": "LoRA+ 4", "seed": 2, "held_out": 9.0},
    ]
    assert table(log).splitlines()[2:] == [
        "| the defaults | 1.5000 |  | -0.5000 to +0.5000 | 2 |",
        "| rank 4 | 2.2500 | +0.2500 |  | 1 |",
        "| rsLoRA | 1.5000 | +0.0000 | -0.5000 to +0.5000 | 2 |",
    ]


def test_every_change_is_one_of_the_defaults() -> None:
    usual = TrainingConfig()
    for factor, change in FACTORS.items():
        made = TrainingConfig(**change)
        other = {k for k in change if getattr(made, k) != getattr(usual, k)}
        assert other == set(change), factor
        assert other <= {"alpha", "rank"} or len(other) == 1 or factor == DEFAULTS
