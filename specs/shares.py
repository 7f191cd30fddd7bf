"""The interval of a share, which gates hold a pack to and reports print."""

from __future__ import annotations

import math


def wilson(share: float, rows: int) -> tuple[float, float]:
    """95 % interval of a share of `rows` independent rows (Wilson, 1927); [0, 1] for no rows."""
    if rows == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = (
        z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    )
    # rounding must not put a share of 0 or 1 outside
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
