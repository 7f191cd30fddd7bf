"""A curve in one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

BARS, PLAIN = "▁▂▃▄▅▆▇█", "_.-=^"


def sparkline(values: Sequence[float], width: int = 30, encoding: str | None = "utf-8") -> str:
    """Means of `width` equal stretches, from the lowest bar to the highest.

    Args:
        encoding: of where it is shown; only Unicode has bars.
    """
    if not values:
        return ""
    levels = BARS if (encoding or "").lower().replace("-", "").startswith("utf") else PLAIN
    width = min(width, len(values))
    ends = [round(i * len(values) / width) for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)]
    low, span = min(means), (max(means) - min(means)) or 1.0
    top = len(levels) - 1
    return "".join(levels[round((mean - low) / span * top)] for mean in means)
