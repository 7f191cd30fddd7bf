"""Our side of `decode` and `prefill`: the torch engine in a process of its own.

Usage: python -m bench.worker BASE_FOLDER THREADS [--adapter]

Reads one JSON object per line, `{"prompt": tokens, "new": tokens}`, and answers each with the
seconds of prefilling and of decoding.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.random_adapter import ALPHA, RANK, prompt_tokens, random_adapter
from runtime.engine import ActiveAdapter
from specs.errors import MbpmError

if TYPE_CHECKING:
    from runtime.torch_engine import TorchEngine


def measure(
    engine: TorchEngine, adapters: list[ActiveAdapter], prompt: int, new: int
) -> dict[str, object]:
    """Prefill and greedy decoding of one sequence, in seconds, and the tokens chosen."""
    cache = engine.new_cache(prompt + new)
    start = time.perf_counter()
    answer = engine.forward(cache, prompt_tokens(prompt), adapters)
    prefilled = time.perf_counter()
    chosen: list[int] = []
    for _ in range(new):
        assert answer.logits is not None
        chosen.append(int(answer.logits[-1].argmax()))
        answer = engine.forward(cache, chosen[-1:], adapters)
    ended = time.perf_counter()
    return {"prefill": prefilled - start, "decode": ended - prefilled, "tokens": chosen}


def main(arguments: list[str]) -> None:
    """Load the engine, say so, and serve until the input ends."""
    import torch

    from runtime.adapter import Adapter
    from runtime.torch_engine import TorchEngine

    torch.set_num_threads(int(arguments[1]))
    engine = TorchEngine(Path(arguments[0]), device="cpu")
    adapters = []
    if "--adapter" in arguments:
        tensors = {k: torch.from_numpy(v) for k, v in random_adapter(engine.card).items()}
        adapter = Adapter.build(tensors, engine.card, ALPHA / RANK, engine.device, engine.dtype)
        adapters = [ActiveAdapter(engine.add_adapter(adapter))]
    print(json.dumps({"engine": f"{engine.name}, torch {torch.__version__}"}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(measure(engine, adapters, request["prompt"], request["new"])), flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MbpmError as error:
        print(json.dumps({"error": error.message}), flush=True)
        sys.exit(error.exit_code)
