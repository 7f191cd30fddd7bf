"""Training a byte-level BPE tokenizer, and saying it the way GGUF files do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from specs.errors import UsageError

PRE = "smollm"
"""How text is cut before merging: digits one by one, then GPT-2's words; llama.cpp knows it too."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END_OF_TEXT, TURN_START, TURN_END = range(3)
NORMAL, CONTROL = 1, 3
"""Values of `tokenizer.ggml.token_type` (gguf's TokenType)."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, as SmolLM2 and Qwen2.5 write it."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> dict[str, Any]:
    """Train a tokenizer and return its GGUF metadata.

    Raises:
        UsageError: the texts hold too few different words for so large a vocabulary.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    learnt = json.loads(backend.to_str())["model"]
    vocab: dict[str, int] = learnt["vocab"]
    if len(vocab) < vocab_size:
        raise UsageError(
            f"the text gives {len(vocab):,} tokens, fewer than vocab_size {vocab_size:,}",
            hint=f"set `vocab_size` to {len(vocab)} or less, or train on more text",
        )
    tokens = sorted(vocab, key=vocab.__getitem__)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": PRE,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if t in SPECIAL else NORMAL for t in tokens],
        "tokenizer.ggml.merges": [
            m if isinstance(m, str) else " ".join(m) for m in learnt["merges"]
        ],
        "tokenizer.ggml.bos_token_id": TURN_START,
        "tokenizer.ggml.eos_token_id": TURN_END,
        "tokenizer.ggml.padding_token_id": END_OF_TEXT,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
