"""What two runs of tokens have in common at the start: what a cache need not read again."""

from __future__ import annotations

from collections.abc import Sequence


def common_prefix(a: Sequence[int], b: Sequence[int], most: int) -> int:
    """How many tokens both begin with, at most `most`."""
    most = min(most, len(a), len(b))
    return next((i for i in range(most) if a[i] != b[i]), most)
