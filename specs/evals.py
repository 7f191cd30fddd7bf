"""`evals.json`: what was measured of a pack, on which rows, against the base."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from specs.manifest import ADAPTER_FILE, ROUTING_FILE, AdapterInfo, Manifest
from specs.model import Contract
from specs.names import Name, Sha256

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
MIN_GROUPS = 6
"""Where fewer groups of rows all gain, chance does as much in more than one of twenty cases: what
training holds out, and what a gate wants to see."""
Nats = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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
    """For accuracies: what chance gets, or who always gives the commonest answer, if that is more.
    """
    p_value: Share | None = None
    """Two-sided, of "base and pack are alike", by `test`."""
    test: Literal["sign-flip", "McNemar"] | None = None


class Taken(Contract):
    """How many questions of another pack this one would take."""

    pack: Name
    rows: Annotated[int, Field(ge=1)]
    share: Share


class RoutingEval(Contract):
    """How well the pack's prototypes tell its own held-out prompts from other text."""

    recall: Share
    """Share of the pack's own held-out prompts it accepts."""
    false_fires: Share
    """Share of background prompts, unseen in calibration, that it accepts."""
    own_rows: Annotated[int, Field(ge=0)]
    background_rows: Annotated[int, Field(ge=0)]
    auroc: Share | None = None
    """How often one of its own held-out prompts scores above a background prompt."""
    others: Annotated[tuple[Taken, ...], Field(max_length=1000)] | None = None
    """Questions of packs that were installed beside it when it was measured."""


class Divergence(Contract):
    """How far next-token distributions lie from the base's: KL(base || pack), nats per token."""

    mean: Nats
    p95: Nats
    p99: Nats


class OffDomain(Contract):
    """What a pack changes where it should change nothing: on general prompts.

    The tokens are those of the base's own answers. `active`: the pack takes part in every one;
    `routed`: it takes part where the router gives it the prompt, and elsewhere the base answers.
    """

    prompts: Annotated[int, Field(ge=1)]
    tokens: Annotated[int, Field(ge=1)]
    identical: bool
    """Whether the logits of the base alone were the same, bit for bit, with the pack loaded."""
    taken: Annotated[int, Field(ge=0)]
    """Prompts that the router gives to the pack."""
    active: Divergence
    routed: Divergence
    suite_active: Metric
    """Accuracy on the general suite with the pack active on every question."""
    suite_routed: Metric
    """The same where the router decides."""

    @property
    def suites(self) -> tuple[Metric, Metric]:
        """Both, named so that they can stand side by side."""
        active, routed = self.suite_active, self.suite_routed
        return (
            active.model_copy(update={"name": f"{active.name}, pack active"}),
            routed.model_copy(update={"name": f"{routed.name}, router decides"}),
        )


class Subject(Contract):
    """What figures are of: other bytes, or the same ones applied otherwise, have other figures."""

    weights: Sha256
    """Of the pack's adapter.safetensors."""
    routing: Sha256
    """Of its routing.safetensors."""
    adapter: AdapterInfo
    """How the adapter was applied."""

    @classmethod
    def of(cls, manifest: Manifest) -> Subject:
        """What figures of a pack have to be of."""
        return cls(
            weights=manifest.blob(ADAPTER_FILE).sha256,
            routing=manifest.blob(ROUTING_FILE).sha256,
            adapter=manifest.adapter,
        )

    def difference(self, manifest: Manifest) -> str | None:
        """In which way a pack is another than this one, in words; None where it is not."""
        own = Subject.of(manifest)
        if self.weights != own.weights:
            return f"another adapter (sha256 {self.weights[:12]}, not {own.weights[:12]})"
        if self.routing != own.routing:
            return f"another routing card (sha256 {self.routing[:12]}, not {own.routing[:12]})"
        for name in AdapterInfo.model_fields:
            then, now = getattr(self.adapter, name), getattr(own.adapter, name)
            if then != now:
                return f"the adapter with `{name}` {then}, not {now}"
        return None


class Evals(Contract):
    """The evaluation record of one pack. The first metric, where there is one, is the main one."""

    format: Literal[1] = 1
    domain: Name
    base_fingerprint: Sha256
    runtime: str
    """Which engine and precision measured it."""
    seed: int
    metrics: tuple[Metric, ...]
    """None: nothing was measured, as of a pack that was imported."""
    routing: RoutingEval | None = None
    off_domain: OffDomain | None = None
    notes: tuple[str, ...] = ()
    subject: Subject | None = None
    """What was measured; None: nobody knows, as of records made before this was kept."""

    _late: ClassVar[tuple[str, ...]] = ("subject",)
