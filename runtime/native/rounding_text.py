"""Text to round a base's weights by: what the base itself writes when nobody asks.

Rounding needs to know which inputs a matrix sees. A base's own samples show it without data of
others, whatever the base was trained on (Liu et al., "LLM-QAT", arXiv 2305.17888, section 3.1).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runtime.native.engine import NativeEngine, Row
from runtime.requantise import PIECE_TOKENS, PIECES

FREQUENT = 2000
"""Samples begin with a token of the most frequent ones, which have the lowest ids."""
GREEDY_TOKENS = 3
"""The first tokens are the likeliest ones, so that a sample begins with sense."""


def own_samples(base_dir: Path) -> list[list[int]]:
    """Tokens [PIECES][PIECE_TOKENS], the same for the same base."""
    engine = NativeEngine(base_dir)
    rng = np.random.default_rng(0)
    caches = [engine.new_cache(PIECE_TOKENS) for _ in range(PIECES)]
    first = min(FREQUENT, engine.config.vocab_size // 2)
    tokens = [[int(t)] for t in rng.integers(first // 4, first, PIECES)]
    for step in range(PIECE_TOKENS - 1):
        rows = [Row(cache, ids[-1]) for cache, ids in zip(caches, tokens, strict=True)]
        logits = engine.decode(rows)
        if step >= GREEDY_TOKENS:
            # the largest of logits with Gumbel noise is a sample of their softmax
            logits += rng.gumbel(size=logits.shape)
        for ids, token in zip(tokens, logits.argmax(axis=-1), strict=True):
            ids.append(int(token))
    return tokens
