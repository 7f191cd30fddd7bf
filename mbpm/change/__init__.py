"""Changing what is installed: plan, fetch, check, stage, flip.

`install`, `removal`, `restore` and `marks` work out a change and touch nothing, `steps` is what it
consists of and `bases` what it needs of bases, `apply` makes it true, and `run` is what a command
calls and `show` how it looks.
"""

from __future__ import annotations

from mbpm.change.run import carry_out

__all__ = ["carry_out"]
