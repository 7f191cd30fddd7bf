"""Shakespeare's works, as the source archive of `shakespeare` has them, as passages to go on from.

The texts stand one after the other; each begins with its title in capitals and `by William
Shakespeare`. Two kinds: `scene` (the passage that follows a passage) and `sonnet` (a whole poem
from its first line). The group is the work, or the sonnet.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from specs.model import Contract
from trainer.data.converters.taking import taken
from trainer.data.documents import split_passages
from trainer.data.encoding import decode
from trainer.data.example import Example

_TITLE = re.compile(r"(?:THE END)?([A-Z][A-Z ',.;:-]{3,60})\s*\n+\s*by William Shakespeare\s*\n")
_BEGINS = re.compile(r"^\W*(ACT|SCENE)\b.*$", re.MULTILINE | re.IGNORECASE)
_NUMBER = re.compile(r"^[IVXLC]+\.?\s*$", re.MULTILINE)
SONNETS = "THE SONNETS"
_SCENE = (
    "Go on with this scene of {w}:\n\n{p}",
    "Continue in the manner of Shakespeare:\n\n{p}",
    "{p}\n\nWhat comes next in {w}?",
)
_SONNET = (
    "Write a sonnet in the manner of Shakespeare that begins: {line}",
    "Make a sonnet of this first line: {line}",
)


class PlaysOptions(Contract):
    """How much to take."""

    passages: Annotated[int, Field(ge=1)]
    """Passages of plays, at most: a seeded sample."""


def convert(raw: bytes, options: PlaysOptions, seed: int) -> list[Example]:
    """Examples of all works.

    Raises:
        IntegrityError: `raw` holds no work.
    """
    rng = random.Random(seed)
    scenes: list[Example] = []
    sonnets: list[Example] = []
    for title, body in works(decode(raw, "Shakespeare")):
        if title == SONNETS:
            sonnets.extend(_sonnets(body, rng))
        else:
            scenes.extend(_scenes(title, body, rng))
    missing = "Shakespeare: holds no work that begins with title and author"
    made = [*taken(scenes, rng, missing, most=options.passages), *sonnets]
    return taken(made, rng, missing)


def works(text: str) -> Iterator[tuple[str, str]]:
    """Titles in capitals, and the texts below them."""
    parts = _TITLE.split(text.replace("\r\n", "\n"))
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        yield title.strip(" .,"), body


def _scenes(title: str, body: str, rng: random.Random) -> Iterator[Example]:
    first = _BEGINS.search(body)
    passages = split_passages(body[first.start() :] if first else body)
    name = f"«{title.title().replace(chr(39) + 'S', chr(39) + 's')}»"
    for before, after in itertools.pairwise(passages):
        prompt = rng.choice(_SCENE).format(w=name, p=before)
        yield Example.of_pair(prompt, after, title, kind="scene")


def _sonnets(body: str, rng: random.Random) -> Iterator[Example]:
    for number, poem in enumerate(_NUMBER.split(body)[1:], 1):
        lines = [line.rstrip() for line in poem.strip("\n").splitlines()]
        if 12 <= len(lines) <= 16:
            prompt = rng.choice(_SONNET).format(line=lines[0].strip())
            yield Example.of_pair(prompt, "\n".join(lines), f"sonnet {number}", kind="sonnet")
