"""`startup`: whole-process time of commands that only look something up, and to a first token."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from bench.peers import SERVER_MISSING, llama_server, program, script
from bench.processes import first_token
from bench.report import Case, Report, machine
from specs.base_card import WEIGHTS_FILE
from specs.errors import MbpmError

MIN_ROUNDS = 11
QUESTION = "What is a stent?"


def startup(rounds: int, base: tuple[str, Path] | None) -> Report:
    """`mbpm --version` and `mbpm list` beside what people type elsewhere, and `mbpm run`.

    Args:
        base: Name and folder of the base to run, where it is installed.
    """
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
    if base is None:
        notes.append("no base is installed to run: `mbpm base install smollm2-135m`")
    else:
        cases += _running(mbpm, *base, server, rounds)
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


def _running(
    mbpm: list[str], base: str, base_dir: Path, server: Path | None, rounds: int
) -> list[Case]:
    """From starting a process to the first letters of an answer, weights in the system's cache."""
    ask = [*mbpm, "run", "--base", base, "--temperature", "0", "--max-tokens", "2"]
    ours: dict[str, list[float]] = {"none": [], "auto": []}
    inside: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds + 1):
        for pack, times in ours.items():
            times.append(_to_first_byte([*ask, "--pack", pack, QUESTION]))
        seconds = json.loads(_output([*ask, "--pack", "none", "--json", QUESTION]))["seconds"]
        inside.append(1000 * (seconds["load"] + seconds["prefill"]))
        if server is not None:
            theirs.append(1000 * first_token(server, base_dir / WEIGHTS_FILE, QUESTION))
    named = {"none": "the base alone", "auto": "the router asked"}
    cases = [
        Case.of_rounds(
            f"mbpm run, {base}, {named[pack]}: to the first token", times[1:], theirs[1:],
            "llama-server, then a question", "ms", higher_is_better=False,
        )
        for pack, times in ours.items()
    ]  # fmt: skip
    name = f"mbpm run, {base}, the base alone: from loading to the first token"
    return [*cases, Case.of_rounds(name, inside[1:], None, None, "ms", higher_is_better=False)]


def _to_first_byte(command: list[str]) -> float:
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        came = os.read(process.stdout.fileno(), 1)
        taken = time.perf_counter() - start
        process.stdout.read()
    if not came or process.returncode:
        raise MbpmError(f"`{' '.join(command)}` failed")
    return taken * 1000


def _output(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise MbpmError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def _milliseconds(command: list[str]) -> float:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    taken = time.perf_counter() - start
    if done.returncode:
        raise MbpmError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return taken * 1000
