"""What is made from everything installed, once per change: named, deferred, and never a script."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbpm.home import Home
    from mbpm.output import Output
    from specs.generation import Generation


def run_triggers(home: Home, generation: Generation, out: Output) -> None:
    """Make what a generation calls for and is not there yet."""


def current_files(home: Home) -> set[Path]:
    """The derived files that the current generations of all profiles use."""
    return set()
