"""Held-out data, split off by group so that nothing is asked in training and in the test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from specs.errors import UsageError
from trainer.data.example import Example, normalise

MIN_HELD_OUT_GROUPS = 4
MIN_TRAIN_EXAMPLES = 16


@dataclass(frozen=True)
class Split:
    """Training and held-out examples, each in the order they were read."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    dropped: int
    """Held-out examples left out because training asks the same."""


def position(group: str, seed: int) -> float:
    """Where a group falls in [0, 1): a function of its name and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def split_by_group(examples: Sequence[Example], *, fraction: float = 0.1, seed: int = 0) -> Split:
    """Hold out the groups whose position is below `fraction`, at least `MIN_HELD_OUT_GROUPS`.

    A group stays on its side when data is added, but for the few held out only to reach that
    minimum. Held-out examples whose normalised prompt also occurs in training are dropped.

    Raises:
        UsageError: too few groups or examples, with the numbers.
    """
    places = sorted((position(group, seed), group) for group in {e.group for e in examples})
    if len(places) < 2 * MIN_HELD_OUT_GROUPS:
        raise UsageError(
            f"too little data to hold some out: {len(examples)} examples in {len(places)} groups "
            f"(expected at least {2 * MIN_HELD_OUT_GROUPS} groups)",
            hint="rows with the same `group`, or else the same prompt, form one group",
        )
    held = {g for rank, (p, g) in enumerate(places) if p < fraction or rank < MIN_HELD_OUT_GROUPS}
    train = tuple(e for e in examples if e.group not in held)
    if len(train) < MIN_TRAIN_EXAMPLES:
        raise UsageError(
            f"too little data to train on: {len(train)} examples beside "
            f"{len(examples) - len(train)} held-out ones (expected at least {MIN_TRAIN_EXAMPLES})"
        )
    asked = {_key(e) for e in train}
    rest = [e for e in examples if e.group in held]
    kept = tuple(e for e in rest if _key(e) not in asked)
    left = len({e.group for e in kept})
    if left < MIN_HELD_OUT_GROUPS:
        raise UsageError(
            f"too little held-out data: {left} groups are left after dropping "
            f"{len(rest) - len(kept)} of {len(rest)} examples whose prompt is also in training "
            f"(expected at least {MIN_HELD_OUT_GROUPS} groups)"
        )
    return Split(train, kept, len(rest) - len(kept))


def _key(example: Example) -> str:
    """What an example asks; a prompt of punctuation alone counts as it is written."""
    texts = (m.content for m in example.messages[:-1])
    return "\n".join(normalise(text) or text for text in texts)
