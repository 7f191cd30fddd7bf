"""Likelihoods and answers from an engine, reading nothing twice.

Rows are asked in an order in which those that begin alike stand together, and a cache is read again
only from where a row differs from the one before. With activation `answer` a prompt is read once
for the base and the pack together, since its keys and values are the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from runtime.engine import ActiveAdapter, Engine
from runtime.logprobs import log_softmax
from trainer.batches import Row

F64 = npt.NDArray[np.float64]
Adapters = tuple[ActiveAdapter, ...]
Tick = Callable[[int], None]
"""Told how many more rows are done."""

PIECE = 64
"""Tokens whose logits are held at once: a vocabulary of 152k takes 39 MB for them."""


def unwatched(done: int) -> None:
    """A `Tick` for nobody."""


@dataclass(frozen=True)
class Scores:
    """Per row: summed negative log-likelihood of the answer in nats, and its tokens."""

    nats: F64
    tokens: F64


class Reader:
    """A cache that knows what it holds."""

    def __init__(self, engine: Engine, capacity: int) -> None:
        self._engine = engine
        self._cache = engine.new_cache(capacity)
        self._held: list[tuple[int, Adapters]] = []

    def log_probs(self, row: Row, adapters: Adapters) -> Iterator[tuple[int, F64]]:
        """The distributions the answer's tokens are drawn from.

        Args:
            adapters: They act on `row.tokens[row.start:]`.

        Yields:
            Index of the first token, and natural-log probabilities [n, vocabulary] of it and those
            that follow, in pieces.
        """
        before = row.answer - 1
        self._read(row, before, adapters)
        for begin in range(before, len(row.tokens) - 1, PIECE):
            end = min(begin + PIECE, len(row.tokens) - 1)
            logits = self._forward(row, begin, end, adapters, want=True)
            assert logits is not None
            yield begin + 1, log_softmax(logits)

    def generate(
        self, row: Row, adapters: Adapters, most: int, stop: Callable[[int], bool]
    ) -> list[int]:
        """The likeliest tokens one after another; the answer of `row` is not looked at.

        Args:
            most: How many at most.
            stop: Whether a token ends the answer; it is not part of it.
        """
        tokens = list(row.tokens[: row.answer])
        self._read(row, row.answer - 1, adapters)
        made: list[int] = []
        while len(made) < most and len(tokens) <= self._cache.capacity:
            grown = Row(tuple(tokens), row.start, row.answer, row.group)
            logits = self._forward(grown, len(tokens) - 1, len(tokens), adapters, want=True)
            assert logits is not None
            token = int(logits[-1].argmax())
            if stop(token):
                break
            made.append(token)
            tokens.append(token)
        return made

    def _read(self, row: Row, end: int, adapters: Adapters) -> None:
        """Hold exactly the first `end` tokens of a row."""
        same = 0
        wanted = self._tagged(row, 0, end, adapters)
        for held, new in zip(self._held, wanted, strict=False):
            if held != new:
                break
            same += 1
        self._cache.truncate(same)
        del self._held[same:]
        middle = max(same, min(row.start, end))
        for begin, stop in ((same, middle), (middle, end)):
            if begin < stop:
                self._forward(row, begin, stop, adapters, want=False)

    def _forward(
        self, row: Row, begin: int, end: int, adapters: Adapters, *, want: bool
    ) -> npt.NDArray[np.float32] | None:
        active = adapters if begin >= row.start else ()
        logits = self._engine.forward(
            self._cache, row.tokens[begin:end], active, logits="all" if want else "none"
        ).logits
        self._held += self._tagged(row, begin, end, adapters)
        return logits

    @staticmethod
    def _tagged(row: Row, begin: int, end: int, adapters: Adapters) -> list[tuple[int, Adapters]]:
        """Tokens with the adapters that act on each."""
        return [(row.tokens[i], adapters if i >= row.start else ()) for i in range(begin, end)]


def readers(
    engine: Engine, rows: Sequence[Row], systems: Sequence[Adapters], spare: int = 0
) -> list[Reader]:
    """A reader per system; the same one where the base reads every prompt for all of them.

    Args:
        spare: Room for more tokens than the longest row has.
    """
    longest = max(len(r.tokens) for r in rows)
    capacity = max(longest, min(longest + spare, engine.config.context_length))
    if all(r.start for r in rows):
        return [Reader(engine, capacity)] * len(systems)
    return [Reader(engine, capacity) for _ in systems]


def in_order(rows: Sequence[Row]) -> list[int]:
    """Indices of rows so that those that begin alike stand together."""
    return sorted(range(len(rows)), key=lambda i: rows[i].tokens)


def score(
    engine: Engine, rows: Sequence[Row], systems: Sequence[Adapters], tick: Tick = unwatched
) -> list[Scores]:
    """Score the answers of `rows` under each system, with the engine that people run.

    Args:
        systems: Sets of adapters; the empty one is the base alone.

    Returns:
        Scores per system, their rows in the order given.
    """
    nats = np.zeros((len(systems), len(rows)))
    both = readers(engine, rows, systems)
    # the options of one question under one system, and then under the next
    for _, run in groupby(in_order(rows), lambda i: rows[i].tokens[: rows[i].answer]):
        asked = list(run)
        for which, (reader, adapters) in enumerate(zip(both, systems, strict=True)):
            for index in asked:
                row = rows[index]
                for first, scores in reader.log_probs(row, adapters):
                    answer = np.array(row.tokens[first : first + len(scores)])
                    nats[which, index] -= scores[np.arange(len(scores)), answer].sum()
        tick(len(asked))
    tokens = np.array([float(len(r.tokens) - r.answer) for r in rows])
    return [Scores(n, tokens) for n in nats]


def divergence(
    engine: Engine, rows: Sequence[Row], adapters: Adapters, tick: Tick = unwatched
) -> list[F64]:
    """KL(base || adapters) in nats at every token of the rows' answers."""
    found: list[F64] = [np.empty(0)] * len(rows)
    base, pack = readers(engine, rows, ((), adapters))
    for index in in_order(rows):
        row = rows[index]
        reference = [scores for _, scores in base.log_probs(row, ())]
        pieces = [
            # rounding can leave a sum a hair below zero
            np.maximum((np.exp(p) * (p - q)).sum(axis=-1), 0.0)
            for p, (_, q) in zip(reference, pack.log_probs(row, adapters), strict=True)
        ]
        found[index] = np.concatenate(pieces)
        tick(1)
    return found
