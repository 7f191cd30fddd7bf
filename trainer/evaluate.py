"""Measuring a pack beside the base, or the base alone, on the same held-out rows."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from runtime.chat_format import ChatFormat
from runtime.engine import Engine
from runtime.tokenizer import Tokenizer
from specs.errors import UsageError
from specs.manifest import Activation
from trainer.batches import Row, encode
from trainer.data.example import Example, Message, normalise
from trainer.measured import Measured
from trainer.sandbox import run, unavailable
from trainer.scoring import Adapters, Scores, Tick, in_order, readers, score
from trainer.statistics import MIN_GROUPS

EXACT_LETTERS = 40
"""A kind whose answers are all one line of at most so many letters is matched exactly."""
EXACT_ROWS = 100
"""Rows of a kind that are answered for that: writing is slower than reading."""
CODE_TOKENS = 256
"""Tokens of an answer that is a program."""
_FENCED = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
SPARE_TOKENS = 8
"""How many more tokens than the longest right answer an answer may have."""

T = TypeVar("T")
Watch = Callable[[str, int], Tick]
"""Told that a part begins and how many rows it has."""


@dataclass(frozen=True)
class Setting:
    """What runs, and how rows are laid out for it."""

    engine: Engine
    tokenizer: Tokenizer
    chat: ChatFormat
    systems: tuple[Adapters, ...]
    """The base alone, `()`, and after it the pack, where there is one."""
    activation: Activation
    max_length: int
    """Tokens of a row; the start of a longer prompt is cut."""
    seed: int = 0
    unsandboxed: bool = False
    """Run programs of answers even where they cannot be shut in."""

    def row(self, example: Example) -> Row | None:
        """An example as tokens; None where its answer alone is too long."""
        return encode(example, self.chat, self.activation, self.max_length)


@dataclass(frozen=True)
class Measurements:
    """Perplexity first, then what else the rows allow; notes are what was left out and why."""

    found: tuple[Measured, ...]
    notes: tuple[str, ...]


def evaluate(setting: Setting, held_out: Sequence[Example], watch: Watch) -> Measurements:
    """Everything held-out rows can be measured by.

    Perplexity of the answers; per kind with choices, how often the right one is likeliest; per kind
    of short answers, how often they are given exactly; per kind with tests, how often the code that
    is written passes them.

    Raises:
        UsageError: there are no rows, none that fit, or too few groups for an interval.
    """
    if not held_out:
        raise UsageError("there are no held-out rows to evaluate on")
    notes = []
    kept = [(e, r) for e in held_out if (r := setting.row(e)) is not None]
    if not kept:
        raise UsageError(
            f"every held-out answer is longer than {setting.max_length} tokens",
            hint="raise `--max-length`, or give shorter answers",
        )
    if len(kept) < len(held_out):
        notes.append(
            f"{len(held_out) - len(kept)} of {len(held_out)} held-out rows were left out: their "
            f"answers are longer than {setting.max_length} tokens."
        )
    rows = [r for _, r in kept]
    found = [
        perplexity(
            rows, score(setting.engine, rows, setting.systems, watch("perplexity", len(rows)))
        )
    ]
    for kind in sorted({e.kind for e, _ in kept}):
        mine = [e for e, _ in kept if e.kind == kind]
        if any(e.tests for e in mine) and not setting.unsandboxed and (why := unavailable()):
            notes.append(f"code_passes_{kind or 'all'} was left out: {why}.")
        for measure in (choices, exact_match, code_passes):
            measured = measure(setting, kind or "all", mine, watch)
            if measured is None:
                continue
            if len(set(measured.groups)) < MIN_GROUPS:
                notes.append(f"{measured.name} was left out: one group has no interval.")
                continue
            found.append(measured)
    return Measurements(tuple(found), tuple(notes))


def perplexity(rows: Sequence[Row], scores: Sequence[Scores]) -> Measured:
    """Perplexity of the answers' tokens; the prompt's do not count."""
    return Measured(
        "response_perplexity",
        "perplexity of held-out answers, response tokens only",
        "perplexity",
        np.stack([s.nats for s in scores]),
        scores[0].tokens,
        [r.group for r in rows],
    )


@dataclass(frozen=True)
class Options:
    """Every option of every multiple-choice example as a row of its own."""

    rows: list[Row]
    owner: npt.NDArray[np.intp]
    """Per row: the example it belongs to."""
    right: npt.NDArray[np.bool_]
    """Per row: whether it is the right option."""
    examples: list[Example]


def options(setting: Setting, examples: Sequence[Example]) -> Options:
    """Lay out the options of examples that have some; those with an overlong one are left out."""
    rows: list[Row] = []
    owner: list[int] = []
    right: list[bool] = []
    kept: list[Example] = []
    for example in examples:
        made = [
            setting.row(Example((*example.messages[:-1], Message("assistant", c)), example.group))
            for c in example.choices
        ]
        if example.answer not in example.choices or any(r is None for r in made):
            continue
        rows += [r for r in made if r is not None]
        owner += [len(kept)] * len(made)
        right += [c == example.answer for c in example.choices]
        kept.append(example)
    return Options(rows, np.array(owner, dtype=np.intp), np.array(right, dtype=bool), kept)


def choices(
    setting: Setting, kind: str, examples: Sequence[Example], watch: Watch
) -> Measured | None:
    """How often the right option is likeliest per token; None where no example has options."""
    laid = options(setting, examples)
    if not laid.examples:
        return None
    tick = watch(f"choices ({kind})", len(laid.rows))
    return choice_accuracy(kind, laid, score(setting.engine, laid.rows, setting.systems, tick))


def choice_accuracy(kind: str, laid: Options, scores: Sequence[Scores]) -> Measured:
    """Accuracy by length-normalised likelihood (`acc_norm` over tokens)."""
    count = len(laid.examples)
    hits = np.zeros((len(scores), count))
    for which, system in enumerate(scores):
        per_token = system.nats / system.tokens
        for example in range(count):
            mine = np.flatnonzero(laid.owner == example)
            hits[which, example] = laid.right[mine[np.argmin(per_token[mine])]]
    return Measured(
        f"choice_accuracy_{kind}",
        f"right option of a held-out {kind} question has the highest likelihood per token",
        "share",
        hits,
        np.ones(count),
        [e.group for e in laid.examples],
        _choice_baseline(laid.examples),
    )


def _choice_baseline(examples: Sequence[Example]) -> float:
    """What chance gets; where all choose from the same options, the commonest if that is more."""
    chance = float(np.mean([1 / len(e.choices) for e in examples]))
    if len({frozenset(e.choices) for e in examples}) > 1:
        return chance
    return max(chance, _commonest([e.answer for e in examples]))


def _commonest(answers: Sequence[str]) -> float:
    return Counter(answers).most_common(1)[0][1] / len(answers)


def exact_match(
    setting: Setting, kind: str, examples: Sequence[Example], watch: Watch
) -> Measured | None:
    """How often the likeliest answer is the right one, but for case and punctuation.

    None where an answer of this kind is long or has several lines.
    """
    if any(len(e.answer) > EXACT_LETTERS or "\n" in e.answer.strip() for e in examples):
        return None
    some = sample(examples, EXACT_ROWS, setting.seed)
    rows = [r for e in some if (r := setting.row(e)) is not None]
    most = max(len(r.tokens) - r.answer for r in rows) + SPARE_TOKENS
    texts = answers(setting, rows, most, watch(f"exact match ({kind})", len(rows)))
    wanted = [normalise(e.answer) for e in some]
    hits = [[float(normalise(t) == w) for t, w in zip(ts, wanted, strict=True)] for ts in texts]
    return Measured(
        f"exact_match_{kind}",
        f"likeliest answer to a held-out {kind} question is the right one, but for case and "
        "punctuation",
        "share",
        np.array(hits),
        np.ones(len(some)),
        [e.group for e in some],
        _commonest(wanted),
    )


def code_passes(
    setting: Setting, kind: str, examples: Sequence[Example], watch: Watch
) -> Measured | None:
    """How often the code of the likeliest answer passes the example's tests (pass@1).

    None where no example has tests, or programs cannot be shut in here.
    """
    tested = [(e, r) for e in examples if e.tests and (r := setting.row(e)) is not None]
    if not tested or not (setting.unsandboxed or unavailable() is None):
        return None
    tested = sample(tested, EXACT_ROWS, setting.seed)
    rows = [r for _, r in tested]
    texts = answers(setting, rows, CODE_TOKENS, watch(f"code ({kind})", len(rows)))
    tick = watch(f"running the code ({kind})", len(rows) * len(texts))
    hits = np.zeros((len(texts), len(rows)))
    for which, written in enumerate(texts):
        for index, (text, (example, _)) in enumerate(zip(written, tested, strict=True)):
            program = f"{code_of(text)}\n\n{example.tests}\n"
            hits[which, index] = run(program, forced=setting.unsandboxed).passed
            tick(1)
    return Measured(
        f"code_passes_{kind}",
        f"code of the likeliest answer to a held-out {kind} task passes its tests",
        "share",
        hits,
        np.ones(len(rows)),
        [e.group for e, _ in tested],
        0.0,
    )


def code_of(answer: str) -> str:
    """The first fenced block of an answer, or all of it where it has none."""
    found = _FENCED.search(answer)
    return answer if found is None else found[1]


def answers(setting: Setting, rows: Sequence[Row], most: int, tick: Tick) -> list[list[str]]:
    """What each system answers to the prompts of `rows`, always taking the likeliest token.

    Args:
        most: Tokens of an answer.

    Returns:
        Texts per system, in the order of `rows`.
    """
    texts = [[""] * len(rows) for _ in setting.systems]
    prompts = [replace(r, tokens=r.tokens[: r.answer]) for r in rows]
    both = readers(setting.engine, prompts, setting.systems, most)
    stop = setting.tokenizer.eos_ids.__contains__
    for index in in_order(prompts):
        for which, (reader, adapters) in enumerate(zip(both, setting.systems, strict=True)):
            made = reader.generate(prompts[index], adapters, most, stop)
            texts[which][index] = setting.tokenizer.decode(made).strip()
        tick(1)
    return texts


def sample(rows: Sequence[T], most: int, seed: int) -> list[T]:
    """At most so many rows, by seed."""
    return random.Random(seed).sample(list(rows), min(len(rows), most))
