"""`decode` and `prefill`: the torch engine beside llama.cpp; same file, tokens and threads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.peers import SERVER_MISSING, llama_server
from bench.processes import LlamaServer, Worker
from bench.random_adapter import prompt_tokens, random_adapter, write_gguf
from bench.report import Case, Report, cores, machine
from runtime.gguf_file import model_config, open_gguf
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard

BASE = "smollm2-135m"
DECODE_PROMPT, DECODE_NEW = 128, 64
PREFILL_PROMPTS = (128, 512)
PEER = "llama.cpp llama-server"


def decode(base_dir: Path, rounds: int) -> Report:
    """Tokens per second of greedy decoding."""

    def cases(worker: Worker, server: LlamaServer | None, suffix: str) -> list[Case]:
        name = f"{DECODE_NEW} tokens after {DECODE_PROMPT}, {suffix}"
        ours, peer = _alternate(
            worker,
            server,
            rounds,
            (DECODE_PROMPT, DECODE_NEW),
            lambda answer: DECODE_NEW / answer["decode"],
            _decoded_per_second,
        )
        return [_case(name, ours, peer)]

    return _run("decode", base_dir, cases)


def _decoded_per_second(timings: dict[str, Any]) -> float:
    # its clock starts when the first token has been chosen, so n tokens are n - 1 steps
    return float((timings["predicted_n"] - 1) * 1000 / timings["predicted_ms"])


def prefill(base_dir: Path, rounds: int) -> Report:
    """Tokens per second of reading a prompt."""

    def cases(worker: Worker, server: LlamaServer | None, suffix: str) -> list[Case]:
        made = []
        for count in PREFILL_PROMPTS:

            def speed(answer: dict[str, float], count: int = count) -> float:
                return count / answer["prefill"]

            ours, peer = _alternate(
                worker, server, rounds, (count, 1), speed, lambda t: t["prompt_per_second"]
            )
            made.append(_case(f"{count} tokens, {suffix}", ours, peer))
        return made

    return _run("prefill", base_dir, cases)


def _case(name: str, ours: list[float], peer: list[float]) -> Case:
    return Case.of_rounds(name, ours, peer or None, PEER, "tokens/s", higher_is_better=True)


def _run(
    name: str,
    base_dir: Path,
    cases: Callable[[Worker, LlamaServer | None, str], list[Case]],
) -> Report:
    described = {**machine(), "model": f"{BASE} ({WEIGHTS_FILE})", "threads": cores()}
    weights = base_dir / WEIGHTS_FILE
    binary = llama_server()
    made: list[Case] = []
    with tempfile.TemporaryDirectory() as folder:
        lora = Path(folder) / "adapter.gguf"
        card = BaseCard.parse((base_dir / CARD_FILE).read_bytes(), CARD_FILE)
        write_gguf(random_adapter(card), model_config(open_gguf(weights)), lora)
        for adapter, suffix in ((False, "base alone"), (True, "one rank-8 adapter")):
            with Worker(base_dir, adapter=adapter) as worker:
                described["engine"] = worker.engine
                if binary is None:
                    made += cases(worker, None, suffix)
                    continue
                worker.pause()
                with LlamaServer(binary, weights, lora=lora if adapter else None) as server:
                    made += cases(worker, server, suffix)
    return Report(name, described, made, [] if binary else [SERVER_MISSING])


def _alternate(
    worker: Worker,
    server: LlamaServer | None,
    rounds: int,
    request: tuple[int, int],
    of_ours: Callable[[dict[str, float]], float],
    of_peer: Callable[[dict[str, Any]], float],
) -> tuple[list[float], list[float]]:
    """One unmeasured round, then `rounds` of A and B in turns, the idle side paused."""
    prompt = prompt_tokens(request[0])
    ours: list[float] = []
    peer: list[float] = []
    for _ in range(rounds + 1):
        worker.resume()
        ours.append(of_ours(worker.ask(*request)))
        if server is not None:
            worker.pause()
            server.resume()
            peer.append(of_peer(server.complete(prompt, request[1])["timings"]))
            server.pause()
    return ours[1:], peer[1:]
