"""Names that sound like one that does not exist, without comparing it with every name there is."""

from __future__ import annotations

import difflib
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbpm.registries.source import Source

FEW = 1000
"""So many names are simply compared all."""
SAME_START = 500
_LETTERS = string.ascii_lowercase + string.digits + "-_."


def close(name: str, sources: Sequence[Source]) -> str | None:
    """The name of a pack that was probably meant."""
    pool: set[str] = set()
    for source in sources:
        some = source.beginning("", FEW + 1)
        if len(some) > FEW:
            some = [*source.having(_one_off(name)), *source.beginning(name[:3], SAME_START)]
        pool.update(some)
    found = difflib.get_close_matches(name, sorted(pool), n=1)
    return found[0] if found else None


def _one_off(name: str) -> list[str]:
    """Valid names that differ by one letter missing, added, changed or swapped with the next."""
    from specs.names import check_name

    splits = [(name[:i], name[i:]) for i in range(len(name) + 1)]
    made = {a + b[1:] for a, b in splits if b}
    made |= {a + b[1] + b[0] + b[2:] for a, b in splits if len(b) > 1}
    made |= {a + c + b[1:] for a, b in splits if b for c in _LETTERS}
    made |= {a + c + b for a, b in splits for c in _LETTERS}
    valid = []
    for text in sorted(made):
        try:
            valid.append(check_name(text))
        except ValueError:
            continue
    return valid
