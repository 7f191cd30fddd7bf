"""Words about a conversion that `mbpm import` and `mbpm export` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbpm.output import Output
    from trainer.interchange.compare import Agreement


def show(out: Output, agreement: Agreement, lost: Sequence[str]) -> None:
    """The comparison of logits, and what was not carried."""
    out.line(
        f"logits   max difference {agreement.max_difference:.3g}, mean "
        f"{agreement.mean_difference:.3g}, same likeliest token {agreement.top1:.1%} "
        f"({agreement.positions} tokens of {agreement.prompts} prompts)"
    )
    out.line(f"effect   the adapter itself changes logits by {agreement.effect:.3g} on average")
    for what in lost:
        out.line(f"lost     {what}")


def as_json(agreement: Agreement, lost: Sequence[str]) -> dict[str, Any]:
    """The same as JSON."""
    return {"agreement": asdict(agreement), "lost": list(lost)}
