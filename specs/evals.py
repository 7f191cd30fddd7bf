"""`evals.json`: what was measured of a pack, on which rows, against the base."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from specs.model import Contract
from specs.names import Name, Sha256

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Metric(Contract):
    """One number for the base and the pack on the same held-out rows.

    `gain` is positive when the pack is better, whatever the direction of the metric; its interval
    is a 95 % paired bootstrap over groups.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    description: str = ""
    unit: str = ""
    higher_is_better: bool
    base: Finite
    pack: Finite
    gain: Finite
    gain_low: Finite
    gain_high: Finite
    rows: Annotated[int, Field(ge=1)]
    groups: Annotated[int, Field(ge=1)]
    baseline: Finite | None = None
    """Chance or majority, for accuracies."""


class RoutingEval(Contract):
    """How well the pack's prototypes tell its own held-out prompts from other text."""

    recall: Annotated[float, Field(ge=0, le=1)]
    """Share of the pack's own held-out prompts it accepts."""
    false_fires: Annotated[float, Field(ge=0, le=1)]
    """Share of background prompts, unseen in calibration, that it accepts."""
    own_rows: Annotated[int, Field(ge=0)]
    background_rows: Annotated[int, Field(ge=0)]


class Evals(Contract):
    """The evaluation record of one pack. The first metric is the main one."""

    format: Literal[1] = 1
    domain: Name
    base_fingerprint: Sha256
    runtime: str
    """Which engine and precision measured it."""
    seed: int
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1)]
    routing: RoutingEval | None = None
    notes: tuple[str, ...] = ()
