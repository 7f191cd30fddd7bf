"""What the versions of a pack say of themselves, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specs.index_line import EvalSummary


def headline(notes: str) -> str:
    """The first line of release notes that says something."""
    return next((line.strip() for line in notes.splitlines() if line.strip()), "")


def eval_change(old: EvalSummary | None, new: EvalSummary | None) -> str:
    """How the main metric of two versions compares: `accuracy 0.42 -> 0.48 (better)`; where it
    does not, how the new one compares with the base alone."""
    if new is None:
        return ""
    if old is None or old.metric != new.metric:
        return f"{new.metric} {new.pack:.4g} ({new.base:.4g} without the pack)"
    if old.pack == new.pack:
        word = "same"
    else:
        word = "better" if (new.pack > old.pack) == new.higher_is_better else "worse"
    return f"{new.metric} {old.pack:.4g} -> {new.pack:.4g} ({word})"
