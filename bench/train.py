"""`train`: an adapter on a quantised base beside transformers and peft, same rows and threads.

Without a GPU the peer has no quantised base to train on: it holds the same shape as floats, with
random weights, of which speed and memory do not depend. Both sides compute rank 8 on all seven
projections, the loss of every answer token, gradients, clipping and AdamW.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.inference import BASE
from bench.processes import TrainWorker, resident_of
from bench.report import Case, Report, cores, machine
from bench.train_worker import RANK, Rows
from specs.base_card import WEIGHTS_FILE
from specs.errors import MbpmError

if TYPE_CHECKING:
    from mbpm.state import State

PEER = "transformers + peft"
KINDS = ("bfloat16", "float32")
BATCH, LENGTH = 4, 256
REAL_BATCH, REAL_EXAMPLES, REAL_EPOCHS = 16, 32, 3
WARM = 2
MEMORY = {BASE: 1_190_000_000}
"""What ours may hold, by base."""
OTHER_MEMORY = 2_900_000_000


def train(base_dir: Path, name: str, rounds: int, real: Rows | None) -> Report:
    """Tokens per second and peak memory of steps; examples per second of `real` rows, if any."""
    described = {**machine(), "base": name, "rank": RANK, "threads": cores()}
    memory = MEMORY.get(name, OTHER_MEMORY)
    notes = [f"ours was allowed {memory / 1e6:.0f} MB, as with `mbpm train --memory`"]
    rng = random.Random(7)
    rows: Rows = [
        ([rng.randrange(1000, 20000) for _ in range(LENGTH + 1)], 0, 1) for _ in range(BATCH)
    ]
    kinds = KINDS if name == BASE else KINDS[:1]
    if kinds != KINDS:
        notes.append(f"{PEER} in float32 is measured with {BASE} alone: there it is slower")
    cases = _steps(base_dir, rows, rounds, memory, kinds, notes)
    if real is None:
        notes.append(f"real rows are measured with {BASE}, where the recipe's data can be had")
    else:
        cases.append(_epochs(base_dir, real, memory, notes))
    return Report("train", described, cases, notes)


def real_rows(state: State, base_dir: Path) -> Rows | None:
    """Examples of the recipe `medical`, fetched where needed; None where they cannot be had."""
    from mbpm.recipes import fetch_data
    from runtime.chat_format import ChatFormat
    from runtime.tokenizer import Tokenizer
    from trainer.batches import encode_all
    from trainer.recipe import load_recipe, recipe_folder

    try:
        examples = fetch_data(state, load_recipe("medical"), recipe_folder("medical")).train[
            :REAL_EXAMPLES
        ]
    except MbpmError:
        return None
    weights = base_dir / WEIGHTS_FILE
    chat = ChatFormat.from_gguf(weights, Tokenizer.from_gguf(weights))
    rows = encode_all(examples, chat, "answer", 512)
    return [(list(row.tokens), row.start, row.answer) for row in rows]


def _start(
    base_dir: Path, kinds: Sequence[str], memory: int, notes: list[str]
) -> dict[str, TrainWorker]:
    """The peers that run here, paused."""
    started = {}
    for kind in kinds:
        try:
            started[kind] = TrainWorker(kind, base_dir, memory)
        except MbpmError as error:
            notes.append(f"{PEER} in {kind} did not start: {error.message}")
            continue
        started[kind].pause()
    return started


def _leave_out_the_slower(
    sides: dict[str, TrainWorker], seconds: dict[str, list[float]], notes: list[str]
) -> None:
    """Of the peer's types only the faster goes on."""
    peers = sorted((kind for kind in sides if kind != "ours"), key=lambda kind: seconds[kind][-1])
    for kind in peers[1:]:
        peak = resident_of(sides[kind].process.pid) or 0
        notes.append(
            f"{PEER} in {kind} took {seconds[kind][-1]:.1f} s for its second step, in {peers[0]} "
            f"{seconds[peers[0]][-1]:.1f} s: left out, with a peak of {peak / 1e6:.0f} MB"
        )
        side = sides.pop(kind)
        side.resume()
        side.__exit__(None, None, None)
        del seconds[kind]


def _steps(
    base_dir: Path,
    rows: Rows,
    rounds: int,
    memory: int,
    kinds: Sequence[str],
    notes: list[str],
) -> list[Case]:
    """Two unmeasured steps of each side, then `rounds` of ours and the peer's faster type in turns,
    the idle side paused."""
    tokens = len(rows) * LENGTH
    job: dict[str, Any] = {"rows": rows, "batch": len(rows), "epochs": 1}
    sides = {"ours": TrainWorker("ours", base_dir, memory)}
    sides["ours"].pause()
    sides |= _start(base_dir, kinds, memory, notes)
    seconds: dict[str, list[float]] = {kind: [] for kind in sides}
    try:
        for number in range(rounds + WARM):
            for kind, side in list(sides.items()):
                side.resume()
                seconds[kind] += side.ask({**job, "goes_on": number > 0})["seconds"]
                side.pause()
            if number == WARM - 1:
                _leave_out_the_slower(sides, seconds, notes)
        peaks = {kind: resident_of(side.process.pid) or 0 for kind, side in sides.items()}
    finally:
        for side in sides.values():
            side.__exit__(None, None, None)
    speeds = {kind: [tokens / s for s in times[WARM:]] for kind, times in seconds.items()}
    peers = [kind for kind in sides if kind != "ours"]
    for kind in sides:
        notes.append(f"{kind}: {median(speeds[kind]):.0f} tokens/s, {peaks[kind] / 1e6:.0f} MB")
    best = max(peers, key=lambda kind: median(speeds[kind]), default=None)
    what = f"batch {BATCH} x {LENGTH}"
    return [
        Case.of_rounds(
            f"{what}, loss on every token",
            speeds["ours"],
            None if best is None else speeds[best],
            f"{PEER}, {best or 'faster type'}",
            "tokens/s",
            higher_is_better=True,
        ),
        Case.of_rounds(
            f"{what}: peak resident",
            [peaks["ours"] / 1e6],
            None if best is None else [peaks[best] / 1e6],
            f"{PEER}, {best or 'faster type'}",
            "MB",
            higher_is_better=False,
        ),
    ]


def _epochs(base_dir: Path, rows: Rows, memory: int, notes: list[str]) -> Case:
    """Three epochs over real rows: ours packed, prompts read once; the peer's padded."""
    job = {"rows": rows, "batch": REAL_BATCH, "epochs": REAL_EPOCHS}
    speeds: dict[str, float] = {}
    for kind in ("ours", "bfloat16"):
        try:
            side = TrainWorker(kind, base_dir, memory)
        except MbpmError as error:
            notes.append(f"{PEER} in {kind} did not start: {error.message}")
            continue
        with side:
            warm = {**job, "rows": rows[:REAL_BATCH], "epochs": 1}
            side.ask(warm)
            made = side.ask(job)
            speeds[kind] = len(rows) * REAL_EPOCHS / (made["before"] + sum(made["seconds"]))
    answers = sum(len(tokens) - start for tokens, start, _ in rows)
    notes.append(
        f"real rows: {len(rows)}, {sum(len(t) for t, _, _ in rows) / len(rows):.0f} tokens each, "
        f"{answers / len(rows):.0f} of them from the answer's start on; steps of {REAL_BATCH}; "
        "reading the prompts counts"
    )
    peer = speeds.get("bfloat16")
    return Case.of_rounds(
        f"{REAL_EPOCHS} epochs over real rows, activation `answer`",
        [speeds["ours"]],
        None if peer is None else [peer],
        f"{PEER}, bfloat16, padded",
        "examples/s",
        higher_is_better=True,
    )
