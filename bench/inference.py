"""`decode`, `prefill` and `mixed`: our engine beside llama.cpp; same file, tokens and threads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peer_files import four_bit_files
from bench.peers import SERVER_MISSING, llama_server
from bench.processes import LlamaServer, Worker, neighbour
from bench.random_adapter import prompt_tokens, random_adapter, write_gguf, write_pack
from bench.report import Case, Report, cores, machine, tell
from runtime.gguf_file import model_config, open_gguf
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard

BASE = "smollm2-135m"
DECODE_PROMPT, DECODE_NEW = 128, 64
PREFILL_PROMPTS = (128, 512)
ROWS, ROW_PROMPT, ROW_STEPS = 8, 64, 24
PEER = "llama.cpp llama-server"


@dataclass(frozen=True)
class Setting:
    """What is measured: one base in one of our engines, beside llama.cpp on one file."""

    base_dir: Path
    engine: str
    """Name, and precision after a dash: `native`, `native-int4`, `torch`."""
    rounds: int
    busy: bool = False
    """Whether another process spins beside both sides."""

    @property
    def card(self) -> BaseCard:
        return BaseCard.parse((self.base_dir / CARD_FILE).read_bytes(), CARD_FILE)

    def peer_files(self) -> dict[str, Path]:
        """What llama.cpp reads: the same file, or its own best 4-bit files of the same weights."""
        weights = self.base_dir / WEIGHTS_FILE
        return four_bit_files(weights) if self.engine.endswith("-int4") else {"": weights}

    def described(self, worker: Worker) -> dict[str, object]:
        found = {**machine(), "threads": cores(), "engine": worker.engine}
        return {**found, "neighbour": "one that spins"} if self.busy else found


def decode(setting: Setting) -> Report:
    """Tokens per second of greedy decoding, and which part of the memory's speed they take."""

    def cases(sides: Sides, suffix: str) -> Iterator[Case]:
        name = f"{DECODE_NEW} tokens after {DECODE_PROMPT}, {suffix}"

        def speed(answer: dict[str, Any]) -> float:
            return float(DECODE_NEW / answer["decode"])

        yield from sides.alternate(
            name, (DECODE_PROMPT, DECODE_NEW), speed, _decoded_per_second, probe=True
        )

    return _beside("decode", setting, cases)


def prefill(setting: Setting) -> Report:
    """Tokens per second of reading a prompt."""

    def cases(sides: Sides, suffix: str) -> Iterator[Case]:
        for count in PREFILL_PROMPTS:

            def speed(answer: dict[str, Any], count: int = count) -> float:
                return float(count / answer["prefill"])

            yield from sides.alternate(
                f"{count} tokens, {suffix}", (count, 1), speed, lambda t: t["prompt_per_second"]
            )

    return _beside("prefill", setting, cases)


def mixed(setting: Setting) -> Report:
    """Tokens per second of eight rows that use eight packs, beside eight rows that use one."""
    eight, one = list(range(ROWS)), [0] * ROWS
    speeds: dict[str, list[float]] = {"eight": [], "one": []}
    with (
        packs(setting.card, ROWS) as folders,
        Worker(setting.base_dir, setting.engine, folders) as worker,
    ):
        described = setting.described(worker)
        for number in range(setting.rounds + 1):
            for name, rows in (("eight", eight), ("one", one)):
                answer = worker.ask("rows", packs=rows, prompt=ROW_PROMPT, steps=ROW_STEPS)
                if number:
                    speeds[name].append(ROWS * ROW_STEPS / answer["seconds"])
    name = f"{setting.card.name}: {ROWS} rows with {ROWS} packs"
    peer = f"ours, {ROWS} rows with one pack"
    case = Case.of_rounds(
        name, speeds["eight"], speeds["one"], peer, "tokens/s", higher_is_better=True
    )
    return Report("mixed", described, [case])


def _decoded_per_second(timings: dict[str, Any]) -> float:
    # its clock starts when the first token has been chosen, so n tokens are n - 1 steps
    return float((timings["predicted_n"] - 1) * 1000 / timings["predicted_ms"])


@contextmanager
def packs(card: BaseCard, count: int) -> Iterator[list[Path]]:
    """Folders of random packs, there while the context is open."""
    with tempfile.TemporaryDirectory() as folder:
        yield [write_pack(card, Path(folder) / f"random-{n}", n) for n in range(count)]


@dataclass(frozen=True)
class Sides:
    """Our worker and llama.cpp's servers, one per file, all paused but the one being measured."""

    setting: Setting
    worker: Worker
    servers: dict[str, LlamaServer]
    pack: int | None

    def alternate(
        self,
        name: str,
        request: tuple[int, int],
        of_ours: Callable[[dict[str, Any]], float],
        of_peer: Callable[[dict[str, Any]], float],
        *,
        probe: bool = False,
    ) -> Iterator[Case]:
        """One unmeasured round, then rounds in turns; a case for each of the peer's files.

        Args:
            request: Tokens of the prompt, and new tokens.
            probe: Whether the speed of memory is measured beside every round, and the part of it
                that our side reached is a case of its own.
        """
        ours: list[float] = []
        fractions: list[float] = []
        peers: dict[str, list[float]] = {file: [] for file in self.servers}
        read = self.worker.bytes_per_token
        for number in range(self.setting.rounds + 1):
            tell(f"{name}: round {number} of {self.setting.rounds}")
            self.worker.resume()
            answer = self.worker.ask("generate", prompt=request[0], new=request[1], pack=self.pack)
            ours.append(of_ours(answer))
            if probe:
                bandwidth = self.worker.ask("bandwidth")["bytes_per_second"]
                fractions.append(100 * read * ours[-1] / bandwidth)
            self.worker.pause()
            for file, server in self.servers.items():
                server.resume()
                answer = server.complete(prompt_tokens(request[0]), request[1])
                peers[file].append(of_peer(answer["timings"]))
                server.pause()
        for file, speeds in (peers or {"": []}).items():
            peer = f"{PEER} {file}".rstrip()
            yield Case.of_rounds(
                name, ours[1:], speeds[1:] or None, peer, "tokens/s", higher_is_better=True
            )
        if probe:
            yield Case.of_rounds(
                f"{name}: of the memory's speed ({read / 1e6:.0f} MB a token)",
                fractions[1:],
                None,
                None,
                "%",
                higher_is_better=True,
            )


def _beside(name: str, setting: Setting, cases: Callable[[Sides, str], Iterator[Case]]) -> Report:
    binary, card = llama_server(), setting.card
    files = setting.peer_files() if binary else {}
    described: dict[str, object] = {}
    made: list[Case] = []
    with ExitStack() as stack:
        (pack,) = stack.enter_context(packs(card, 1))
        lora = pack / "adapter.gguf"
        config = model_config(open_gguf(setting.base_dir / WEIGHTS_FILE))
        write_gguf(random_adapter(card, 0), config, lora)
        if setting.busy:
            stack.enter_context(neighbour())
        worker = stack.enter_context(Worker(setting.base_dir, setting.engine, [pack]))
        described = setting.described(worker)
        for number, suffix in ((None, "base alone"), (0, "one rank-8 adapter")):
            worker.pause()
            with ExitStack() as peers:
                servers = {}
                for label, file in files.items():
                    assert binary is not None
                    server = LlamaServer(binary, file, lora=lora if number == 0 else None)
                    servers[label] = peers.enter_context(server)
                    server.pause()
                sides = Sides(setting, worker, servers, number)
                made += cases(sides, f"{card.name}, {suffix}")
    return Report(name, described, made, [] if binary else [SERVER_MISSING])
