"""`startup`: whole-process time of commands that only look something up."""

from __future__ import annotations

import os
import subprocess
import time

from bench.peers import SERVER_MISSING, llama_server, program, script
from bench.report import Case, Report, machine
from specs.errors import MbpmError

MIN_ROUNDS = 11


def startup(rounds: int) -> Report:
    """`mbpm --version` and `mbpm list` beside what people type elsewhere."""
    uv, server = program("uv"), llama_server()
    mbpm, pip = script("mbpm"), script("pip")
    version = [*mbpm, "--version"]
    listing = [*mbpm, "list"]
    rounds = max(rounds, MIN_ROUNDS)
    cases = [
        _case(version, [*pip, "--version"], "pip --version", rounds),
        _case(version, [uv, "--version"] if uv else None, "uv --version", rounds),
        _case(
            version,
            [str(server), "--version"] if server else None,
            "llama-server --version",
            rounds,
        ),
        _case(listing, [*pip, "list"], "pip list", rounds),
        _case(listing, [uv, "pip", "list"] if uv else None, "uv pip list", rounds),
    ]
    notes = []
    if uv is None:
        notes.append("uv is not installed: `pip install uv`")
    if server is None:
        notes.append(SERVER_MISSING)
    return Report("startup", machine(), cases, notes)


def _case(ours: list[str], peer: list[str] | None, peer_name: str, rounds: int) -> Case:
    mine: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds + 1):
        mine.append(_milliseconds(ours))
        if peer is not None:
            theirs.append(_milliseconds(peer))
    name = f"mbpm {ours[-1]}"
    return Case.of_rounds(name, mine[1:], theirs[1:], peer_name, "ms", higher_is_better=False)


def _milliseconds(command: list[str]) -> float:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    taken = time.perf_counter() - start
    if done.returncode:
        raise MbpmError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return taken * 1000
