"""Tokenised examples and the batches made of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from runtime.chat_format import ChatFormat
from specs.errors import UsageError
from specs.manifest import Activation
from trainer.data.example import Example


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

    @property
    def rows(self) -> tuple[Row, ...]:
        """Itself: what a batch is made of may be one row or several."""
        return (self,)

    @property
    def size(self) -> int:
        """All its tokens."""
        return len(self.tokens)

    @property
    def work(self) -> int:
        """Tokens that cost a gradient."""
        return len(self.tokens) - self.start

    @property
    def counted(self) -> int:
        """Tokens of the loss."""
        return len(self.tokens) - self.answer


class Item(Protocol):
    """What is never cut apart: a row, or a pair of rows that are compared."""

    @property
    def rows(self) -> tuple[Row, ...]: ...
    @property
    def size(self) -> int: ...
    @property
    def work(self) -> int: ...


Items = TypeVar("Items", bound=Item)


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
    items: Sequence[Items], batch_tokens: int, shuffle_seed: int | None
) -> list[list[Items]]:
    """Group items, in a random order, so that a batch holds at most `batch_tokens`.

    Without padding items of any length go together. The order depends on the seed alone, so a
    resumed run sees the same one; None keeps the rows' own.
    """
    order = list(items)
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(order)
    made: list[list[Items]] = []
    room = 0
    for item in order:
        if not made or item.size > room:
            made.append([])
            room = batch_tokens
        made[-1].append(item)
        room -= item.size
    return made


def parts(batch: Sequence[Items], count: int) -> list[list[Items]]:
    """Share a batch out so that `count` parts need about the same work; none is empty.

    The longest item goes first, and each to the part with the least tokens so far.
    """
    made: list[list[Items]] = [[] for _ in range(min(count, len(batch)))]
    loads = [0] * len(made)
    for item in sorted(batch, key=lambda i: (i.work, i.size), reverse=True):
        least = loads.index(min(loads))
        made[least].append(item)
        loads[least] += item.work
    return made
