"""Whether a process of this machine lives that left its number somewhere."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_CLOCK_SLACK = 5.0


def alive(pid: int, touched: float) -> bool:
    """Whether the process lives that left its number at that time, and not a later namesake.

    Args:
        pid: Its number.
        touched: Seconds since 1970.
    """
    if os.name == "nt":
        # there is no harmless probe
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    state, begun = _told(pid)
    # one that is dead keeps its number until its parent has asked for its end, which may be never
    return state not in ("Z", "X") and (begun is None or begun <= touched + _CLOCK_SLACK)


def started(pid: int) -> float | None:
    """When a process began, in seconds since 1970; None where the system does not tell."""
    return _told(pid)[1]


def _told(pid: int) -> tuple[str, float | None]:
    """What Linux says of a process: its state, and when it began; empty and None elsewhere."""
    state = ""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        state = fields[0]
        for line in Path("/proc/stat").read_text("ascii").splitlines():
            if line.startswith("btime "):
                ticks = int(fields[19]) / os.sysconf("SC_CLK_TCK")
                return state, int(line.split()[1]) + ticks
    return state, None
