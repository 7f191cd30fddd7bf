"""What a converter gives of everything it made."""

from __future__ import annotations

import random

from specs.errors import IntegrityError
from trainer.data.example import Example


def taken(
    made: list[Example], rng: random.Random, missing: str, *, most: int | None = None
) -> list[Example]:
    """The examples in a drawn order; with `most`, no more than a sample of that many.

    Args:
        made: is shuffled itself where there is no `most`.
        rng: draws.
        missing: what to say where there are none.
        most: how many to take at most.

    Raises:
        IntegrityError: there are none.
    """
    if not made:
        raise IntegrityError(missing)
    if most is not None:
        return rng.sample(made, min(most, len(made)))
    rng.shuffle(made)
    return made
