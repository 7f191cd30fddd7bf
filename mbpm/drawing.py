"""Trees in text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Lines(NamedTuple):
    """The strokes of a tree: before a child, before the last one, and below each of the two."""

    child: str
    last: str
    below: str
    below_last: str


BOX = Lines("├── ", "└── ", "│   ", "    ")
ASCII = Lines("|-- ", "`-- ", "|   ", "    ")


def lines_for(encoding: str | None) -> Lines:
    """Box-drawing strokes where an output with this encoding can show them."""
    try:
        "".join(BOX).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BOX


def draw(
    roots: Iterable[T], visit: Callable[[T], tuple[str, Sequence[T]]], lines: Lines | None = None
) -> Iterator[str]:
    """Draw trees line by line, as deep as they go.

    Args:
        roots: What stands at the left.
        visit: The words of one node, and what stands below it; called once per line, in the order
            of the lines.
        lines: The strokes; those standard output can show if None.
    """
    strokes = lines or lines_for(getattr(sys.stdout, "encoding", None))
    for root in roots:
        # a stack and no recursion: a chain may be longer than Python's own stack
        stack = [(root, "", "")]
        while stack:
            node, before, indent = stack.pop()
            words, children = visit(node)
            yield before + words
            for number, child in enumerate(reversed(children)):
                before, below = (
                    (strokes.child, strokes.below) if number else (strokes.last, strokes.below_last)
                )
                stack.append((child, indent + before, indent + below))
