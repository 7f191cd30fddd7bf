"""Held-out data, split off by group so that nothing is asked in training and in the test."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from specs.errors import UsageError
from specs.evals import MIN_GROUPS
from trainer.data.example import Example, counted, normalise

MIN_HELD_OUT_GROUPS = MIN_GROUPS
MIN_TRAIN_EXAMPLES = 16
MAX_SIMILARITY = 0.9
"""Of a held-out example with one of training, as word triples both have."""


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
            f"too little data to hold some out: {counted(len(examples), 'example')} in "
            f"{counted(len(places), 'group')} "
            f"(expected at least {2 * MIN_HELD_OUT_GROUPS} groups)",
            hint="rows with the same `group`, or else the same prompt, form one group",
        )
    held = {g for rank, (p, g) in enumerate(places) if p < fraction or rank < MIN_HELD_OUT_GROUPS}
    train = tuple(e for e in examples if e.group not in held)
    if len(train) < MIN_TRAIN_EXAMPLES:
        raise UsageError(
            f"too little data to train on: {counted(len(train), 'example')} beside "
            f"{len(examples) - len(train):,} held out (expected at least {MIN_TRAIN_EXAMPLES})",
            hint=_large_group(examples),
        )
    asked = {prompt_key(e) for e in train}
    rest = [e for e in examples if e.group in held]
    kept = tuple(e for e in rest if prompt_key(e) not in asked)
    left = len({e.group for e in kept})
    if left < MIN_HELD_OUT_GROUPS:
        raise UsageError(
            f"too little held-out data: {counted(left, 'group')} left after dropping "
            f"{len(rest) - len(kept)} of {len(rest)} examples whose prompt is also in training "
            f"(expected at least {MIN_HELD_OUT_GROUPS} groups)"
        )
    return Split(train, kept, len(rest) - len(kept))


def check_share(text: str) -> float | None:
    """A share of the groups; None where the text is no number and so names data.

    Raises:
        UsageError: it is a number outside 0.01 to 0.5.
    """
    try:
        share = float(text)
    except ValueError:
        return None
    if not 0.01 <= share <= 0.5:
        raise UsageError(f"the share held out is {text} (expected 0.01 to 0.5)")
    return share


def split_as_given(
    train: Sequence[tuple[str, Example]], held_out: Sequence[tuple[str, Example]]
) -> Split:
    """A split that somebody else made, of examples with their places.

    Raises:
        UsageError: there is too little, or held-out data is in training too.
    """
    from trainer.data.inspection import leaks

    if found := leaks(train, held_out):
        raise UsageError(
            f"{found[0].where}: is held out, and {found[0].first} of the training data says the "
            f"same or is of the same group ({len(found):,} of {len(held_out):,} held-out rows are "
            "in training too)",
            hint="`mbpm data inspect TRAIN --held-out HELD-OUT` names them; `mbpm data split` "
            "splits without",
        )
    groups = len({e.group for _, e in held_out})
    if groups < MIN_HELD_OUT_GROUPS or len(train) < MIN_TRAIN_EXAMPLES:
        raise UsageError(
            f"too little data: {len(train)} examples to train on and {groups} held-out groups "
            f"(expected at least {MIN_TRAIN_EXAMPLES} and {MIN_HELD_OUT_GROUPS})"
        )
    return Split(tuple(e for _, e in train), tuple(e for _, e in held_out), 0)


def _large_group(examples: Sequence[Example]) -> str | None:
    """What to do where one group is most of the data and was held out."""
    ((group, size),) = Counter(e.group for e in examples).most_common(1)
    if size <= len(examples) / 2:
        return None
    return (
        f"the group `{group}` has {size:,} of {len(examples):,} examples, and a group is held out "
        "as a whole or not at all; give its rows smaller groups"
    )


def without_near_repeats(split: Split) -> Split:
    """The split without held-out examples that say nearly what one of training says.

    An example whose earlier turns were left out goes too: they would come back with it.

    Raises:
        UsageError: too few groups are left.
    """
    from trainer.data.inspection import whole_text
    from trainer.data.near import NearIndex

    index = NearIndex(MAX_SIMILARITY)
    for example in split.train:
        index.add(whole_text(example))
    kept = [e for e in split.held_out if index.find(whole_text(e)) is None]
    turns = {(e.messages, e.group) for e in kept}
    kept = [
        e
        for e in kept
        if all(
            (e.messages[:end], e.group) in turns
            for end in range(2, len(e.messages))
            if e.messages[end - 1].role == "assistant" and not e.rejected
        )
    ]
    left, dropped = len({e.group for e in kept}), len(split.held_out) - len(kept)
    if left < MIN_HELD_OUT_GROUPS:
        raise UsageError(
            f"too little held-out data: {left} groups are left after dropping {dropped} of "
            f"{len(split.held_out)} examples that training nearly repeats "
            f"(expected at least {MIN_HELD_OUT_GROUPS} groups)"
        )
    return Split(split.train, tuple(kept), split.dropped + dropped)


def prompt_key(example: Example) -> str:
    """What an example asks; a prompt of punctuation alone counts as it is written."""
    texts = (m.content for m in example.messages[:-1])
    return "\n".join(normalise(text) or text for text in texts)
