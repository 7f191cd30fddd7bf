"""Our side of the benchmarks: an engine in a process of its own.

Usage: python -m bench.worker BASE_FOLDER ENGINE THREADS [PACK_FOLDER ...]

Reads one JSON object per line, `{"do": what, ...}` with the arguments of the method of that name,
and answers each with one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.bandwidth import read_bandwidth
from bench.engines import bytes_per_token, decode_rows, open_engine, own_bandwidth
from bench.processes import resident_of
from bench.random_adapter import prompt_tokens
from runtime.engine import ActiveAdapter
from specs.errors import MbpmError


class Jobs:
    """What may be asked of the worker; every answer is a JSON object."""

    def __init__(self, base_dir: Path, engine: str, threads: int, packs: list[Path]) -> None:
        kind, _, precision = engine.partition("-")
        self.threads = threads
        self.engine = open_engine(kind, base_dir, threads, precision or "packed")
        self.bytes_per_token = bytes_per_token(self.engine, base_dir, precision or "packed")
        self.slots = [self.engine.load_adapter(folder) for folder in packs]

    def _active(self, pack: int | None) -> list[ActiveAdapter]:
        return [] if pack is None else [ActiveAdapter(self.slots[pack])]

    def generate(self, prompt: int, new: int, pack: int | None = None) -> dict[str, Any]:
        """Prefill and greedy decoding of one sequence, in seconds, and the tokens chosen."""
        adapters = self._active(pack)
        cache = self.engine.new_cache(prompt + new)
        start = time.perf_counter()
        answer = self.engine.forward(cache, prompt_tokens(prompt), adapters)
        prefilled = time.perf_counter()
        chosen: list[int] = []
        for _ in range(new):
            assert answer.logits is not None
            chosen.append(int(answer.logits[-1].argmax()))
            answer = self.engine.forward(cache, chosen[-1:], adapters)
        ended = time.perf_counter()
        return {"prefill": prefilled - start, "decode": ended - prefilled, "tokens": chosen}

    def switch(self, prompt: int, steps: int) -> dict[str, Any]:
        """Median seconds of a step with the pack of the step before, and with another one."""
        cache = self.engine.new_cache(prompt + 4 * steps)
        self.engine.forward(cache, prompt_tokens(prompt), self._active(0), logits="none")
        seconds: dict[bool, list[float]] = {False: [], True: []}
        pack = 0
        for number, token in enumerate(prompt_tokens(4 * steps)):
            other = number % 2 == 1
            pack = 1 - pack if other else pack
            active = self._active(pack)
            start = time.perf_counter()
            self.engine.forward(cache, [token], active)
            seconds[other].append(time.perf_counter() - start)
        return {"same": median(seconds[False]), "other": median(seconds[True])}

    def load(self, folder: str, *, cold: bool) -> dict[str, Any]:
        """Seconds of loading a pack, from a disk whose cache does not hold it if `cold`."""
        if cold:
            for file in Path(folder).iterdir():
                forget(file)
        start = time.perf_counter()
        slot = self.engine.load_adapter(Path(folder))
        seconds = time.perf_counter() - start
        self.engine.unload_adapter(slot)
        return {"seconds": seconds}

    def rows(self, packs: list[int], prompt: int, steps: int) -> dict[str, Any]:
        """Seconds of decoding `steps` tokens of as many rows as there are packs, one pack each."""
        caches = [self.engine.new_cache(prompt + steps) for _ in packs]
        adapters = [self._active(pack) for pack in packs]
        for row, (cache, active) in enumerate(zip(caches, adapters, strict=True)):
            tokens = [token + row for token in prompt_tokens(prompt)]
            self.engine.forward(cache, tokens, active, logits="none")
        tokens = prompt_tokens(len(packs))
        start = time.perf_counter()
        for _ in range(steps):
            logits = decode_rows(self.engine, caches, tokens, adapters)
            tokens = [int(token) for token in logits.argmax(axis=-1)]
        return {"seconds": time.perf_counter() - start}

    def bandwidth(self) -> dict[str, Any]:
        """Bytes per second that this process reads from memory: the faster of two ways."""
        return {"bytes_per_second": max(read_bandwidth(self.threads), own_bandwidth(self.engine))}

    def memory(self) -> dict[str, Any]:
        """The peak resident bytes of this process, and what the engine says it holds."""
        return {"resident": resident_of(os.getpid()), "parts": self.engine.memory()}


def forget(file: Path) -> None:
    """Ask the system to drop its cached copy of a file, where it can be asked."""
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main(arguments: list[str]) -> None:
    """Load the engine, say so, and serve until the input ends."""
    base, engine, threads, *packs = arguments
    jobs = Jobs(Path(base), engine, int(threads), [Path(p) for p in packs])
    print(
        json.dumps({"engine": jobs.engine.name, "bytes_per_token": jobs.bytes_per_token}),
        flush=True,
    )
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(jobs, request.pop("do"))(**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MbpmError as error:
        print(json.dumps({"error": error.message}), flush=True)
        sys.exit(error.exit_code)
