"""`python -m bench NAME [--json] [--rounds N] [--home DIR] [--base B] [--engine E] …`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from bench.curve import curve
from bench.engines import ENGINES, PRECISIONS, default_engine
from bench.index import index
from bench.inference import BASE, Setting, decode, mixed, prefill
from bench.memory import memory
from bench.quality import quality
from bench.report import Report
from bench.startup import startup
from bench.switch import switch
from bench.train import real_rows, train
from bench.transfer import transfer
from specs.errors import MbpmError, NotFoundError

ENGINE_BENCHES = {
    "decode": decode,
    "prefill": prefill,
    "switch": switch,
    "mixed": mixed,
    "quality": quality,
}
NAMES = ("startup", *ENGINE_BENCHES, "memory", "transfer", "index", "train", "curve")
MIN_ROUNDS = 5


def run(options: argparse.Namespace) -> Report:
    """Run one benchmark.

    Raises:
        MbpmError: something it measures failed, or the base is not installed.
    """
    rounds, home = max(options.rounds, MIN_ROUNDS), options.home
    if options.name == "startup":
        if home is not None:
            os.environ["MBPM_HOME"] = str(home)
        return startup(rounds, _installed(home, options.base))
    if options.name == "transfer":
        return transfer(rounds)
    if options.name == "index":
        return index(rounds)
    from mbpm.state import State

    state = State.from_environment([], os.environ)
    state.home_path = home or state.home_path
    opened = state.home
    installed = opened.current().base(options.base)
    if installed is None:
        raise NotFoundError(
            f"base `{options.base}` is not installed in {opened.path}",
            hint=f"`mbpm base install {options.base}`, or `--home .cache/demo-home` after "
            "`make demo`",
        )
    base_dir = opened.base_dir(installed)
    if options.name == "curve":
        found = real_rows(state, base_dir)
        if found is None:
            raise NotFoundError("the data of the recipe `medical` cannot be had")
        return curve(base_dir, options.base, found)
    if options.name == "train":
        rows = real_rows(state, base_dir) if options.base == BASE else None
        return train(base_dir, options.base, rounds, rows)
    engine = options.engine + ("-int4" if options.precision == "int4" else "")
    setting = Setting(base_dir, engine, rounds, options.busy)
    if options.name == "memory":
        return memory(setting, opened.path)
    return ENGINE_BENCHES[options.name](setting)


def _installed(home: Path | None, base: str) -> tuple[str, Path] | None:
    from mbpm.state import State

    state = State.from_environment([], os.environ)
    state.home_path = home or state.home_path
    found = state.home.current().base(base)
    return None if found is None else (base, state.home.base_dir(found))


def main(arguments: list[str]) -> int:
    """Parse, run, print; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure beside peers")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=MIN_ROUNDS, metavar="N", help="at least 5")
    parser.add_argument("--home", type=Path, metavar="DIR", help="the home to measure in")
    of_engines = parser.add_argument_group(
        "decode, prefill, switch, mixed, memory, quality; of train the base"
    )
    of_engines.add_argument("--base", default=BASE, help=f"the base (default: {BASE})")
    of_engines.add_argument(
        "--engine", choices=ENGINES, default=default_engine(), help="ours (default: %(default)s)"
    )
    of_engines.add_argument(
        "--precision", choices=PRECISIONS, default="packed", help="of the weights"
    )
    of_engines.add_argument(
        "--busy", action="store_true", help="decode, prefill: beside a process that spins"
    )
    options = parser.parse_args(arguments)
    try:
        report = run(options)
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
    # so that what was started is ended, also what stands still while the other side is measured
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))
