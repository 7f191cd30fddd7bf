"""The native CPU engine: packed weights, C++ kernels, no torch."""

from __future__ import annotations


def why_not() -> str | None:
    """Why the native engine cannot run here, in words; None where it can."""
    try:
        from runtime.native import _native  # noqa: F401
    except ImportError as error:
        if "_native" in str(error) and "cannot import name" in str(error):
            return "mbpm was installed without a C++ compiler"
        return f"its extension cannot be loaded ({error})"
    return None


def instruction_sets() -> list[str]:
    """What the engine can use of this processor, best first; it must be here (`why_not`)."""
    from runtime.native import _native

    return _native.instruction_sets()
