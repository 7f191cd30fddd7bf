"""What a perplexity is measured against: counting words and pairs, which needs no network."""

from __future__ import annotations

import numpy as np

from trainer.pretrain.corpus import Tokens


def unigram_nats(train: Tokens, held_out: Tokens, vocab_size: int) -> float:
    """Mean nats per held-out token of token frequencies, with one added to every count."""
    counts = np.bincount(train, minlength=vocab_size) + 1.0
    return float(-np.log(counts / counts.sum())[held_out[1:]].mean())


def bigram_nats(train: Tokens, held_out: Tokens, vocab_size: int) -> float:
    """Mean nats per held-out token of pair frequencies, mixed with those of single tokens.

    The share of the pairs is n / (n + d), where n is how often the first token was seen and d how
    many different ones followed it (Witten and Bell, 1991).
    """
    single = np.bincount(train, minlength=vocab_size) + 1.0
    single /= single.sum()
    keys, counts = np.unique(
        train[:-1].astype(np.int64) * vocab_size + train[1:], return_counts=True
    )
    first = keys // vocab_size
    seen = np.bincount(first, weights=counts, minlength=vocab_size)
    followers = np.bincount(first, minlength=vocab_size)
    before, after = held_out[:-1].astype(np.int64), held_out[1:].astype(np.int64)
    at = np.minimum(np.searchsorted(keys, before * vocab_size + after), len(keys) - 1)
    found = np.where(keys[at] == before * vocab_size + after, counts[at], 0)
    total = np.maximum(seen[before] + followers[before], 1)
    pairs = np.where(seen[before] > 0, found / total, 0.0)
    rest = np.where(seen[before] > 0, followers[before] / total, 1.0)
    return float(-np.log(pairs + rest * single[after]).mean())
