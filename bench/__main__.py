"""`python -m bench NAME [--json] [--rounds N] [--home DIR] [--base NAME]`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from bench.index import index
from bench.inference import BASE, decode, prefill
from bench.memory import memory
from bench.report import Report
from bench.startup import startup
from bench.train import real_rows, train
from bench.transfer import transfer
from specs.errors import MbpmError, NotFoundError

NAMES = ("startup", "decode", "prefill", "memory", "transfer", "index", "train")
MIN_ROUNDS = 5


def run(name: str, rounds: int, home: Path | None, base: str = BASE) -> Report:
    """Run one benchmark.

    Raises:
        MbpmError: something it measures failed, or the base is not installed.
    """
    if name == "startup":
        if home is not None:
            os.environ["MBPM_HOME"] = str(home)
        return startup(rounds)
    if name == "transfer":
        return transfer(rounds)
    if name == "index":
        return index(rounds)
    from mbpm.state import State

    state = State.from_environment([], os.environ)
    state.home_path = home or state.home_path
    opened = state.home
    installed = opened.current().base(base)
    if installed is None:
        raise NotFoundError(
            f"base `{base}` is not installed in {opened.path}",
            hint=f"`mbpm base install {base}`, or `--home .cache/demo-home` after `make demo`",
        )
    base_dir = opened.base_dir(installed)
    if name == "memory":
        return memory(base_dir, opened.path, rounds)
    if name == "train":
        return train(base_dir, base, rounds, real_rows(state, base_dir) if base == BASE else None)
    return (decode if name == "decode" else prefill)(base_dir, rounds)


def main(arguments: list[str]) -> int:
    """Parse, run, print; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure beside peers")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=MIN_ROUNDS, metavar="N", help="at least 5")
    parser.add_argument("--home", type=Path, metavar="DIR", help="the home to measure in")
    parser.add_argument("--base", default=BASE, metavar="NAME", help="for `train`: another base")
    options = parser.parse_args(arguments)
    try:
        report = run(options.name, max(options.rounds, MIN_ROUNDS), options.home, options.base)
    except MbpmError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(report.document(), indent=2) if options.json else report.table())
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
