"""`memory`: the most memory resident while one question is answered."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.inference import BASE, PEER
from bench.peers import SERVER_MISSING, llama_server, script
from bench.processes import LlamaServer, peak_resident, resident_of
from bench.random_adapter import prompt_tokens
from bench.report import Case, Report, machine
from specs.base_card import WEIGHTS_FILE

CONTEXT = 2048
NEW_TOKENS = 32
MEGABYTE = 1e6


def memory(base_dir: Path, home: Path, rounds: int) -> Report:
    """`mbpm run` beside llama.cpp, with torch's own footprint apart."""
    run = [*script("mbpm"), "--home", str(home), "run", "--pack", "none"]
    run += ["--context", str(CONTEXT), "--max-tokens", str(NEW_TOKENS), "What is a lighthouse?"]
    only_torch = [sys.executable, "-c", "import torch"]
    binary = llama_server()
    ours: list[float] = []
    torch_alone: list[float] = []
    peer: list[float] = []
    for _ in range(rounds):
        ours.append(peak_resident(run) / MEGABYTE)
        torch_alone.append(peak_resident(only_torch) / MEGABYTE)
        if binary is not None:
            with LlamaServer(binary, base_dir / WEIGHTS_FILE, context=CONTEXT) as server:
                server.complete(prompt_tokens(40), NEW_TOKENS)
                resident = resident_of(server.process.pid)
            if resident is not None:
                peer.append(resident / MEGABYTE)
    rest = [all_ - torch_ for all_, torch_ in zip(ours, torch_alone, strict=True)]
    name = f"mbpm run {BASE}, context {CONTEXT}"
    cases = [
        _case(f"{name}: peak resident", ours, peer),
        _case(f"{name}: without torch's own", rest, peer),
        Case.of_rounds(
            "a process that only imports torch",
            torch_alone,
            None,
            None,
            "MB",
            higher_is_better=False,
        ),
    ]
    return Report("memory", machine(), cases, [] if binary else [SERVER_MISSING])


def _case(name: str, ours: list[float], peer: list[float]) -> Case:
    return Case.of_rounds(name, ours, peer or None, PEER, "MB", higher_is_better=False)
