"""`memory`: the most memory resident while one question is answered."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.inference import PEER, Setting
from bench.peers import SERVER_MISSING, llama_server
from bench.processes import LlamaServer, Worker, peak_resident, resident_of
from bench.random_adapter import prompt_tokens
from bench.report import Case, Report, machine
from specs.base_card import WEIGHTS_FILE

CONTEXT = 2048
SHORT, NEW_TOKENS = 40, 32
MEGABYTE = 1e6


def memory(setting: Setting, home: Path) -> Report:
    """`mbpm run` and the engine alone beside llama.cpp, with torch's own footprint apart."""
    name, engine = setting.card.name, setting.engine
    run = [sys.executable, "-m", "mbpm", "--home", str(home), "run", "--pack", "none"]
    kind, _, precision = engine.partition("-")
    run += ["--base", name, "--engine", kind, "--precision", precision or "packed"]
    run += ["--context", str(CONTEXT), "--max-tokens", str(NEW_TOKENS), "What is a lighthouse?"]
    binary = llama_server()
    short: dict[str, list[float]] = {"ours": [], "peer": []}
    full: dict[str, list[float]] = {"ours": [], "peer": []}
    torch_alone: list[float] = []
    for _ in range(setting.rounds):
        short["ours"].append(peak_resident(run) / MEGABYTE)
        with Worker(setting.base_dir, engine) as worker:
            worker.ask("generate", prompt=CONTEXT - NEW_TOKENS, new=NEW_TOKENS)
            full["ours"].append(worker.ask("memory")["resident"] / MEGABYTE)
        if engine.startswith("torch"):
            torch_alone.append(peak_resident([sys.executable, "-c", "import torch"]) / MEGABYTE)
        if binary is not None:
            for prompt, kept in ((SHORT, short["peer"]), (CONTEXT - NEW_TOKENS, full["peer"])):
                weights = setting.base_dir / WEIGHTS_FILE
                with LlamaServer(binary, weights, context=CONTEXT) as server:
                    server.complete(prompt_tokens(prompt), NEW_TOKENS)
                    resident = resident_of(server.process.pid)
                if resident is not None:
                    kept.append(resident / MEGABYTE)
    cases = [
        _case(f"mbpm run {name}, context {CONTEXT}: peak resident", **short),
        _case(f"{name}, the engine with a context of {CONTEXT} full: peak resident", **full),
    ]
    if torch_alone:
        rest = [all_ - torch_ for all_, torch_ in zip(short["ours"], torch_alone, strict=True)]
        cases.append(_case(f"mbpm run {name}: without torch's own", rest, short["peer"]))
        cases.append(_case("a process that only imports torch", torch_alone, None))
    described = {**machine(), "engine": engine}
    return Report("memory", described, cases, [] if binary else [SERVER_MISSING])


def _case(name: str, ours: list[float], peer: list[float] | None) -> Case:
    peer_name = None if peer is None else PEER
    return Case.of_rounds(name, ours, peer or None, peer_name, "MB", higher_is_better=False)
