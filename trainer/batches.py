"""Tokenised examples and the batches made of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from runtime.chat_format import ChatFormat
from specs.errors import UsageError
from specs.manifest import Activation
from trainer.data.example import Example

WINDOW, STRIP = 4096, 128
"""Rows sorted together by the length of their adapted part, and then by that of their prompt."""


@dataclass(frozen=True)
class Row:
    """One tokenised example.

    The adapter acts on `tokens[start:]`; the loss counts `tokens[answer:]`. What stands before
    `start` is the base's alone and needs no gradient.
    """

    tokens: tuple[int, ...]
    start: int
    answer: int
    group: str


def encode(
    example: Example, chat: ChatFormat, activation: Activation, max_length: int
) -> Row | None:
    """Tokenise an example; None when its answer alone is too long."""
    made = chat.example(example.chat())
    tokens, header, answer = made.tokens, made.header_start, made.answer_start
    cut = max(0, len(tokens) - max_length)
    if cut >= header:
        return None
    start = 0 if activation == "full" else header - cut
    return Row(tuple(tokens[cut:]), start, answer - cut, example.group)


def encode_all(
    examples: Sequence[Example], chat: ChatFormat, activation: Activation, max_length: int
) -> list[Row]:
    """Tokenise examples, leaving out those whose answers are too long.

    Raises:
        UsageError: none is left.
    """
    rows = [encode(e, chat, activation, max_length) for e in examples]
    kept = [r for r in rows if r is not None]
    if not kept:
        raise UsageError(
            f"every answer is longer than {max_length} tokens",
            hint="raise `--max-length`, or give shorter answers",
        )
    return kept


def batches(
    rows: Sequence[Row], batch_tokens: int, shuffle_seed: int | None
) -> Iterator[list[Row]]:
    """Group rows of like shape so that a batch holds at most `batch_tokens`, padding included.

    Rows are sorted by their adapted part, which costs a gradient, within large windows, and within
    short strips of that by their prompt. With a seed the rows are shuffled before and the batches
    after: the order depends on the seed alone, so a resumed run sees the same one.
    """
    order = list(rows)
    rng = random.Random(shuffle_seed)
    if shuffle_seed is not None:
        rng.shuffle(order)
    made: list[list[Row]] = []
    for at in range(0, len(order), WINDOW):
        window = sorted(order[at : at + WINDOW], key=lambda r: len(r.tokens) - r.start)
        for strip in range(0, len(window), STRIP):
            batch: list[Row] = []
            prompt = part = 0
            for row in sorted(window[strip : strip + STRIP], key=lambda r: r.start):
                prompt, part = max(prompt, row.start), max(part, len(row.tokens) - row.start)
                if batch and (prompt + part) * (len(batch) + 1) > batch_tokens:
                    made.append(batch)
                    batch = []
                    prompt, part = row.start, len(row.tokens) - row.start
                batch.append(row)
            made.append(batch)
    if shuffle_seed is not None:
        rng.shuffle(made)
    return iter(made)


@dataclass(frozen=True)
class Padded:
    """A batch as tensors: what all prompts begin with (a system message), the rest of each prompt,
    and the parts the adapter acts on, each padded on the right.

    L, P and T are the widths of the three; L and P may be 0.
    """

    shared: torch.Tensor  # [1, L] ids
    prompt: torch.Tensor  # [B, P] ids
    part: torch.Tensor  # [B, T] ids
    prompt_mask: torch.Tensor  # bool [1, 1, P, L + P]
    positions: torch.Tensor  # [B, T]
    mask: torch.Tensor  # bool [B, 1, T, L + P + T]
    predict: torch.Tensor  # bool [B, T]: the next token counts for the loss
    targets: torch.Tensor  # [B, T] the next token


def pad(rows: Sequence[Row], device: torch.device) -> Padded:
    """Bring rows into tensors; the last token of a row is only ever a target."""
    common = _common_prefix(rows)
    prompt_length = torch.tensor([r.start - common for r in rows])
    width = int(prompt_length.max())
    length = max(len(r.tokens) - r.start - 1 for r in rows)
    count = len(rows)
    prompt = torch.zeros(count, width, dtype=torch.long)
    part = torch.zeros(count, length, dtype=torch.long)
    targets = torch.zeros(count, length, dtype=torch.long)
    predict = torch.zeros(count, length, dtype=torch.bool)
    for i, row in enumerate(rows):
        own = torch.tensor(row.tokens[row.start :])
        prompt[i, : row.start - common] = torch.tensor(row.tokens[common : row.start])
        part[i, : len(own) - 1] = own[:-1]
        targets[i, : len(own) - 1] = own[1:]
        predict[i, row.answer - row.start - 1 : len(own) - 1] = True
    seen = torch.arange(width) < prompt_length[:, None]  # [B, P]
    seen = torch.cat([torch.ones(count, common, dtype=torch.bool), seen], dim=1)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.cat(
        [seen[:, None, None].expand(-1, 1, length, -1), causal.expand(count, 1, -1, -1)], dim=-1
    )
    return Padded(
        shared=torch.tensor([rows[0].tokens[:common]], dtype=torch.long).to(device),
        prompt=prompt.to(device),
        part=part.to(device),
        prompt_mask=torch.ones(1, 1, width, common + width, dtype=torch.bool)
        .tril(common)
        .to(device),
        positions=(common + prompt_length[:, None] + torch.arange(length)).to(device),
        mask=mask.to(device),
        predict=predict.to(device),
        targets=targets.to(device),
    )


def _common_prefix(rows: Sequence[Row]) -> int:
    """How many tokens all prompts begin with."""
    shortest = min(r.start for r in rows)
    first = rows[0].tokens
    for at in range(shortest):
        if any(r.tokens[at] != first[at] for r in rows):
            return at
    return shortest
