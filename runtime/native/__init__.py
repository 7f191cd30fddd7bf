"""The native CPU engine: packed weights, C++ kernels, no torch."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from specs.errors import MbpmError, UsageError

if TYPE_CHECKING:
    from runtime.engine import ModelConfig


INTERFACE = 1
"""What is called from here: the extension says the same, or it is another version's."""


class UnsupportedError(MbpmError):
    """A base of a shape that the native engine does not compute."""


def why_not() -> str | None:
    """Why the native engine cannot run here, in words; None where it can."""
    try:
        from runtime.native import _native
    except ImportError as error:
        if "_native" in str(error) and "cannot import name" in str(error):
            return "mbpm was installed without a C++ compiler"
        return f"its extension cannot be loaded ({error})"
    if getattr(_native, "INTERFACE", 0) != INTERFACE:
        return "its extension was built for another version of mbpm"
    return None


def check_supported(config: ModelConfig, file: Path) -> None:
    """See that the engine computes models of this shape; it must be here (`why_not`).

    Raises:
        UnsupportedError: it does not.
    """
    from runtime.native import _native

    reason = _native.unsupported(asdict(config))
    if reason:
        raise UnsupportedError(
            f"{file}: the native engine does not compute this model: {reason}",
            hint="`--engine torch` does",
        )


def instruction_set(asked: str = "") -> str:
    """What the engine uses of this processor; it must be here (`why_not`).

    Args:
        asked: One by name; without, that of `MBPM_ISA`, or else the best.

    Raises:
        UsageError: The processor or the build has none of this name.
    """
    from runtime.native import _native

    known = _native.instruction_sets()
    asked = asked or os.environ.get("MBPM_ISA", "")
    if asked and asked not in known:
        raise UsageError(f"this processor cannot run `{asked}` (it has {', '.join(known)})")
    return asked or known[0]
