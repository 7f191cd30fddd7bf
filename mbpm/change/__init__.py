"""Changing what is installed: plan, fetch, check, stage, flip.

`install`, `removal` and `restore` work out a change and touch nothing, `steps` is what it consists
of, `apply` makes it true, and `run` is what a command calls.
"""

from __future__ import annotations

from mbpm.change.run import carry_out

__all__ = ["carry_out"]
