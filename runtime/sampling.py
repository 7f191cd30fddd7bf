"""Choosing the next token from a row of logits: pure numpy, seeded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.engine import F32
from specs.errors import UsageError

IDs = npt.NDArray[np.intp]
Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Filters apply in this order, each to what the one before left.

    The defaults suit very small models: a low temperature, a short tail, and a repetition penalty
    without which they loop.

    Raises:
        UsageError: on construction, naming the command-line flag that is out of range.
    """

    repetition_penalty: float = 1.1
    """Logits of tokens seen before are divided by it when positive, multiplied when negative
    (Keskar et al., arXiv 1909.05858); 1 switches it off."""
    temperature: float = 0.2
    """0 takes the most likely token."""
    top_k: int = 40
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 0.95
    """Keep the most likely tokens that together reach this probability (arXiv 1904.09751)."""
    min_p: float = 0.05
    """Drop tokens less likely than this share of the most likely one (arXiv 2407.01082)."""
    seed: int | None = None
    """None draws a fresh one."""

    def __post_init__(self) -> None:
        def check(flag: str, value: float, ok: bool, expected: str) -> None:
            if not (math.isfinite(value) and ok):
                raise UsageError(f"`--{flag}` is {value:g} (expected {expected})")

        check("temperature", self.temperature, 0 <= self.temperature <= 10, "0 to 10")
        check("top-k", self.top_k, self.top_k >= 0, "0 or more")
        check("top-p", self.top_p, 0 < self.top_p <= 1, "more than 0, at most 1")
        check("min-p", self.min_p, 0 <= self.min_p <= 1, "0 to 1")
        penalty = self.repetition_penalty
        check("repetition-penalty", penalty, 0 < penalty <= 10, "more than 0, at most 10")
        if self.seed is not None:
            check("seed", self.seed, 0 <= self.seed < 1 << 63, "0 to 2^63 - 1")

    def generator(self) -> np.random.Generator:
        """The random numbers of one answer."""
        return np.random.default_rng(self.seed)


def penalize(logits: F32, seen: Iterable[int], penalty: float) -> F32:
    """A copy of a row [vocab] with the repetition penalty on the tokens in `seen`."""
    row: F32 = logits.copy()
    ids = np.fromiter(set(seen), dtype=np.intp)
    if penalty != 1.0 and ids.size:
        values = row[ids]
        row[ids] = np.where(values > 0, values / penalty, values * penalty)
    return row


def candidates(logits: F32, sampling: Sampling) -> tuple[IDs, Weights]:
    """Tokens that may be drawn and their probabilities, after temperature and all filters.

    Args:
        logits: float32 [vocab].

    Returns:
        ids [n] and probabilities [n], the most likely first where a filter needed the order.
    """
    if sampling.temperature == 0:
        return np.array([logits.argmax()], dtype=np.intp), np.ones(1)
    others = len(logits) - sampling.top_k
    if 0 < others < len(logits):
        ids = np.argpartition(logits, others)[others:]
        ids = ids[np.isfinite(logits[ids])]
    else:
        ids = np.flatnonzero(np.isfinite(logits))
    if sampling.top_p < 1:
        ids = ids[np.argsort(-logits[ids], kind="stable")]
    scaled = logits[ids].astype(np.float64)
    weights: Weights = np.exp((scaled - scaled.max()) / sampling.temperature)
    if sampling.top_p < 1:
        reached = np.cumsum(weights / weights.sum())
        kept = int(np.searchsorted(reached, sampling.top_p)) + 1
        ids, weights = ids[:kept], weights[:kept]
    likely = weights >= sampling.min_p * weights.max()
    ids, weights = ids[likely], weights[likely]
    return ids, weights / weights.sum()


def choose(
    logits: F32, seen: Iterable[int], sampling: Sampling, generator: np.random.Generator
) -> int:
    """The next token.

    Args:
        logits: float32 [vocab]; -inf forbids a token.
        seen: tokens that the repetition penalty falls on.
    """
    row = penalize(logits, seen, sampling.repetition_penalty)
    ids, weights = candidates(row, sampling)
    return int(ids[0]) if len(ids) == 1 else int(generator.choice(ids, p=weights))
