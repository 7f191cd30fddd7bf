"""Changing what is recorded of installed packs: hold, pin, and the auto mark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mbpm.change.run import carry_out
from mbpm.change.steps import Changes, Prepared

if TYPE_CHECKING:
    from mbpm.home import Home
    from mbpm.state import State

Update = tuple[Mapping[str, Any], str]
"""New values of fields of `InstalledPack`, and what is new in words."""


def update(
    state: State, names: Sequence[str], values: Mapping[str, Any], words: str, *, dry_run: bool
) -> None:
    """Give several packs the same marks; raises as `update_each`."""
    update_each(state, dict.fromkeys(names, (values, words)), dry_run=dry_run)


def update_each(state: State, updates: Mapping[str, Update], *, dry_run: bool) -> None:
    """Give packs new marks.

    Raises:
        NotFoundError: one of them is not installed; then none is changed.
    """
    carry_out(
        state,
        lambda: prepare_marks(state.home, updates),
        yes=True,
        dry_run=dry_run,
        idle="nothing to change: " + ", ".join(f"{n} is {w}" for n, (_, w) in updates.items()),
    )


def prepare_marks(home: Home, updates: Mapping[str, Update]) -> Prepared:
    """What it takes to change the records."""
    from mbpm.verify import installed_packs

    changes = Changes.on(home)
    for record in installed_packs(home, list(updates)):
        values, words = updates[record.name]
        new = record.model_copy(update=dict(values))
        if new != record:
            changes.mark_pack(new, words)
    return changes.prepared()
