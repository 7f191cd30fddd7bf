"""What the router looks at: the last message as the base's own prefill sees it.

Two halves, each of `hidden_size`, from the residual stream after one layer: the mean over the
message's tokens, rare tokens counting more, and the state at the token that ends the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from runtime.chat_format import ChatFormat
from runtime.engine import F32, Engine
from runtime.prefix import common_prefix

FREQUENT = 300.0
"""Tokens with an id far below this count little: byte-pair ids are ranks of frequency, so
id / (id + FREQUENT) does what word probabilities do in Arora et al., "A simple but tough-to-beat
baseline for sentence embeddings", ICLR 2017."""


def routing_layer(layers: int) -> int:
    """The layer to look at: a quarter of the way up did best where it was measured."""
    return layers // 4


def pool(hidden: F32, tokens: Sequence[int]) -> F32:
    """One feature [2 * hidden_size] of a message.

    Args:
        hidden: [n + 1, hidden_size], the message's n tokens and the one that ends it.
        tokens: the n ids.
    """
    end = hidden[-1]
    if not len(tokens):
        return np.concatenate([end, end])
    ids = np.asarray(tokens, dtype=np.float32)
    weights = (ids + 1) / (ids + 1 + FREQUENT)
    mean = weights @ hidden[:-1] / weights.sum()
    return np.concatenate([mean, end]).astype(np.float32)


def features(engine: Engine, chat_format: ChatFormat, prompts: Iterable[str], layer: int) -> F32:
    """Features [n, 2 * hidden_size] of questions, each a conversation of its own.

    Raises:
        DoesNotFitError: a question is longer than the base can read.
    """
    rows = []
    cache = engine.new_cache(min(2048, engine.config.context_length))
    held: list[int] = []
    for question in prompts:
        prompt = chat_format.prompt([{"role": "user", "content": question}])
        start, end = prompt.last_message
        if end + 1 > cache.capacity:
            cache, held = engine.new_cache(end + 1), []
        same = common_prefix(held, prompt.tokens, start)
        cache.truncate(same)
        held = prompt.tokens[: end + 1]
        hidden = engine.forward(cache, held[same:], logits="none", hidden_layer=layer).hidden
        assert hidden is not None
        rows.append(pool(hidden[start - same :], prompt.tokens[start:end]))
    return np.stack(rows)
