"""Canaries: prompts with the next tokens that were recorded when a pack was made.

Replaying them proves that the pack that runs here is the one that was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from runtime.chat_format import ChatFormat
from runtime.engine import ActiveAdapter, Engine
from runtime.logprobs import log_softmax
from specs.manifest import Activation, Canary, Manifest, TokenScore

F64 = npt.NDArray[np.float64]

MAX_PROMPT_CHARACTERS = 2000
TOKENS = 5
"""How many of the likeliest next tokens a canary records."""


def record(
    engine: Engine, chat: ChatFormat, prompts: Sequence[str], activation: Activation, slot: int
) -> tuple[Canary, ...]:
    """Record what the base alone and the pack in `slot` would say next."""
    made = []
    for prompt in prompts:
        base = next_logprobs(engine, chat, prompt, activation, ())
        pack = next_logprobs(engine, chat, prompt, activation, (ActiveAdapter(slot),))
        made.append(Canary(prompt=prompt, base=_likeliest(base), pack=_likeliest(pack)))
    return tuple(made)


def replay(engine: Engine, chat: ChatFormat, manifest: Manifest, slot: int) -> Iterator[str]:
    """Yield, in words, every recorded token whose log-probability is not what was recorded."""
    for canary in manifest.canaries:
        for whose, expected, adapters in (
            ("base", canary.base, ()),
            ("pack", canary.pack, (ActiveAdapter(slot),)),
        ):
            found = next_logprobs(
                engine, chat, canary.prompt, manifest.adapter.activation, adapters
            )
            for token in expected:
                if token.id >= len(found) or abs(found[token.id] - token.logprob) > (
                    canary.tolerance
                ):
                    value = f"{found[token.id]:.3f}" if token.id < len(found) else "nothing"
                    yield (
                        f"canary {canary.prompt[:60]!r}: {whose} gives token {token.id} "
                        f"{value}, recorded {token.logprob:.3f}"
                    )


def next_logprobs(
    engine: Engine,
    chat: ChatFormat,
    prompt: str,
    activation: Activation,
    adapters: Sequence[ActiveAdapter],
) -> F64:
    """Natural-log probabilities of the token after a question: [vocab_size]."""
    made = chat.prompt([{"role": "user", "content": prompt}])
    start = made.header_start if activation == "answer" else 0
    cache = engine.new_cache(len(made.tokens))
    if start:
        engine.forward(cache, made.tokens[:start], logits="none")
    logits = engine.forward(cache, made.tokens[start:], adapters).logits
    assert logits is not None
    return log_softmax(logits[0])


def _likeliest(logprobs: F64) -> tuple[TokenScore, ...]:
    best = np.argsort(-logprobs, kind="stable")[:TOKENS]
    return tuple(TokenScore(id=int(i), logprob=round(float(logprobs[i]), 4)) for i in best)
