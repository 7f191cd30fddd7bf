"""One factor of a training run at a time: the held-out loss of each beside the defaults'.

Usage: python -m bench.ablation LOG.jsonl [--home DIR] [--base B] [--seeds N] [--runs N] …

Every run reads the same rows of two recipes three times and is judged by the same rows of other
groups; of runs with the same seed only the factor differs. A line is added to the log after
every run, and a run that stands there is not made again: an interrupted ablation goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.inference import BASE
from bench.report import cores, tell
from specs.errors import UsageError

if TYPE_CHECKING:
    from mbpm.state import State
    from trainer.data.example import Example

RECIPES = ("legal", "reasoning")
"""Short answers of few kinds, and steps written out."""
ROWS, HELD_OUT = 30, 15
"""Of each recipe."""
CHARACTERS = 300
"""Of a row at most, so that a run takes half a minute of one core."""
COMMON: Mapping[str, Any] = {"batch_tokens": 384, "max_length": 128}
DEFAULTS = "the defaults"
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FACTORS: Mapping[str, Mapping[str, Any]] = {
    DEFAULTS: {},
    "rank 4": {"rank": 4, "alpha": 8.0},
    "learning rate x 2": {"learning_rate": 0.002},
    "LoRA+ 4": {"lora_plus": 4.0},
    "attention only": {"projections": ATTENTION},
    "activation full": {"activation": "full"},
    "rank 32": {"rank": 32, "alpha": 64.0},
    "rsLoRA": {"rslora": True},
    "init orthogonal": {"init": "orthogonal"},
    "alpha / rank 1": {"alpha": 8.0},
    "LoRA+ 16": {"lora_plus": 16.0},
    "rank 16": {"rank": 16, "alpha": 32.0},
    "learning rate x 0.5": {"learning_rate": 0.0005},
    "init gaussian": {"init": "gaussian"},
    "alpha / rank 4": {"alpha": 32.0},
    "schedule cosine": {"schedule": "cosine"},
}
"""What is changed of the defaults; alpha grows with the rank where nothing else is said."""


def _data(state: State) -> tuple[list[Example], list[Example]]:
    """Rows to train on and held-out rows of the recipes, the same ones every time."""
    from mbpm.recipes import fetch_data
    from trainer.recipe import load_recipe, recipe_folder

    train, held_out = [], []
    for recipe in RECIPES:
        split = fetch_data(state, load_recipe(recipe), recipe_folder(recipe))
        draw = random.Random(5)
        train += draw.sample(_short(split.train), ROWS)
        held_out += draw.sample(_short(split.held_out), HELD_OUT)
    return train, held_out


def _short(examples: Sequence[Example]) -> list[Example]:
    return [e for e in examples if sum(len(m.content) for m in e.messages) <= CHARACTERS]


class _Listener:
    """Nobody is told of steps."""

    def stage(self, text: str) -> None:
        pass

    def step(self, report: object) -> None:
        pass


def _run(
    base_dir: Path,
    train: list[Example],
    held_out: list[Example],
    change: Mapping[str, Any],
    threads: int,
) -> dict[str, Any]:
    """Train once; the held-out loss and what it took."""
    from trainer.config import TrainingConfig
    from trainer.training import Means, train_adapter

    config = TrainingConfig(**{**COMMON, **change})
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        means = Means.of("cpu", memory=None, cores=threads, tensorboard=None)
        made, _ = train_adapter(base_dir, train, held_out, config, Path(folder), _Listener(), means)
    return {
        "held_out": made.held_out_loss,
        "last_losses": statistics.fmean(made.losses[-10:]),
        "steps": made.steps,
        "seconds": round(time.monotonic() - began, 1),
    }


def _read(log: Path, base: str) -> list[dict[str, Any]]:
    """What stands in the log.

    Raises:
        UsageError: it is of another base.
    """
    if not log.is_file():
        return []
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    if any(line["base"] != base for line in lines):
        raise UsageError(f"{log}: is of another base than {base}", hint="name another log")
    return lines


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The held-out losses as a Markdown table.

    The difference is that of runs with the same seed, in its mean; its range is over the seeds.
    """
    losses: dict[str, dict[int, float]] = {}
    for line in lines:
        losses.setdefault(line["factor"], {})[line["seed"]] = line["held_out"]
    rows = ["| what is changed | held-out loss | difference | range of it | seeds |"]
    rows.append("|---|---|---|---|---|")
    for factor in FACTORS:
        both = sorted(losses.get(factor, {}).keys() & losses.get(DEFAULTS, {}).keys())
        if not both:
            continue
        mean = statistics.fmean(losses[factor][seed] for seed in both)
        if factor == DEFAULTS:
            apart = [losses[factor][s] - mean for s in both]
            difference = ""
        else:
            apart = [losses[factor][s] - losses[DEFAULTS][s] for s in both]
            difference = f"{statistics.fmean(apart):+.4f}"
        spread = f"{min(apart):+.4f} to {max(apart):+.4f}" if len(both) > 1 else ""
        rows.append(f"| {factor} | {mean:.4f} | {difference} | {spread} | {len(both)} |")
    return "\n".join(rows)


def main(arguments: list[str]) -> int:
    """Make the runs that the log lacks, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.ablation", description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--home", type=Path, metavar="DIR", help="the home to measure in")
    parser.add_argument("--base", default=BASE, help="the base (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--runs", type=int, metavar="N", help="stop after so many, to go on later")
    parser.add_argument("--threads", type=int, default=cores(), metavar="N", help="default: all")
    options = parser.parse_args(arguments)
    from mbpm.files import write_atomic
    from mbpm.state import State

    state = State.from_environment([], os.environ)
    state.home_path = options.home or state.home_path
    installed = state.home.current().base(options.base)
    if installed is None:
        parser.error(f"base `{options.base}` is not installed in {state.home.path}")
    train, held_out = _data(state)
    lines = _read(options.log, options.base)
    done = {(line["factor"], line["seed"]) for line in lines}
    seeds = range(options.seeds)
    # first how far apart seeds alone are
    pairs = [(DEFAULTS, seed) for seed in seeds]
    pairs += [(factor, seed) for seed in seeds for factor in FACTORS if factor != DEFAULTS]
    wanted = [pair for pair in pairs if pair not in done]
    for factor, seed in wanted[: options.runs]:
        change = {**FACTORS[factor], "seed": seed}
        found = _run(state.home.base_dir(installed), train, held_out, change, options.threads)
        line = {"base": options.base, "factor": factor, "seed": seed, **found}
        lines.append(line)
        write_atomic(options.log, "".join(json.dumps(each) + "\n" for each in lines).encode())
        tell(json.dumps(line))
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
