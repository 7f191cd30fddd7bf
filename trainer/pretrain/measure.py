"""How well a base predicts text it never saw, beside what needs no training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from runtime.engine import Cache, Engine
from runtime.logprobs import log_softmax
from specs.model import Contract
from trainer.pretrain.baselines import bigram_nats, unigram_nats
from trainer.pretrain.corpus import Tokens, windows
from trainer.pretrain.model import FloatModel

F64 = npt.NDArray[np.float64]
MOST_WINDOWS = 256
RESAMPLES = 1000
BATCH = 8


class Prediction(Contract):
    """One way to predict the held-out text."""

    name: str
    perplexity: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    """Per token."""
    bits_per_byte: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """The same for every tokenizer: only this compares bases with one another."""
    low: float | None = None
    high: float | None = None
    """95 % interval of the perplexity, by bootstrap over windows."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out text as windows, at most MOST_WINDOWS of them, spread over all."""

    rows: Tokens
    """[n, window + 1]"""
    bytes_per_token: float

    @classmethod
    def of(cls, stream: Tokens, size: int, window: int) -> HeldOut:
        """Cut a stream of tokens that stand for `size` bytes."""
        rows = windows(stream, min(window, max(1, len(stream) - 1)))
        if len(rows) > MOST_WINDOWS:
            rows = rows[np.linspace(0, len(rows) - 1, MOST_WINDOWS).astype(np.intp)]
        return cls(rows, size / max(1, len(stream)))

    @property
    def tokens(self) -> int:
        """How many are predicted."""
        return int(self.rows[:, 1:].size)

    def prediction(self, name: str, nats: F64) -> Prediction:
        """The summary of nats per window [n] or of one mean over tokens."""
        per_token = np.atleast_1d(nats)
        mean = float(per_token.mean())
        low = high = None
        if len(per_token) > 1:
            rng = np.random.default_rng(0)
            drawn = rng.integers(0, len(per_token), (RESAMPLES, len(per_token)))
            low, high = np.exp(np.percentile(per_token[drawn].mean(axis=1), [2.5, 97.5])).tolist()
        return Prediction(
            name=name,
            perplexity=math.exp(mean),
            bits_per_byte=mean / math.log(2) / self.bytes_per_token,
            low=low,
            high=high,
        )

    def by_counting(self, train: Tokens, vocab_size: int) -> list[Prediction]:
        """Unigrams and bigrams of the training text."""
        flat = self.rows.reshape(-1)  # one pair in `window` is no real one
        return [
            self.prediction("unigrams", np.array(unigram_nats(train, flat, vocab_size))),
            self.prediction("bigrams", np.array(bigram_nats(train, flat, vocab_size))),
        ]

    @torch.no_grad()
    def by_model(self, name: str, model: FloatModel) -> Prediction:
        """Float weights, before they are trained."""
        found = []
        for at in range(0, len(self.rows), BATCH):
            rows = torch.from_numpy(self.rows[at : at + BATCH].astype(np.int64)).to(model.device)
            found.append(model.losses(rows).reshape(len(rows), -1).mean(dim=1).cpu().numpy())
        return self.prediction(name, np.concatenate(found).astype(np.float64))

    def by_engine(self, name: str, engine: Engine) -> Prediction:
        """The quantised base, as people run it."""
        cache = engine.new_cache(self.rows.shape[1] - 1)
        found = [_nats(engine, cache, row.tolist()) for row in self.rows]
        return self.prediction(name, np.array(found))


def _nats(engine: Engine, cache: Cache, tokens: Sequence[int]) -> float:
    cache.truncate(0)
    logits = engine.forward(cache, tokens[:-1], logits="all").logits
    assert logits is not None
    return float(-log_softmax(logits)[np.arange(len(tokens) - 1), tokens[1:]].mean())
