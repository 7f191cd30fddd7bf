"""What was measured of a pack or a base, in tables and words; shared by `eval`, `train`, `show`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbpm.output import Output
    from specs.evals import Divergence, Evals, Metric, OffDomain, RoutingEval
    from trainer.measured import Alone


def print_evals(out: Output, evals: Evals) -> None:
    """Every number of an evaluation record, for people."""
    metrics = list(evals.metrics)
    if (off := evals.off_domain) is not None:
        metrics += off.suites
    out.table(
        ["metric", "base", "with pack", "gain", "95 % interval", "p", "chance", "rows"],
        [_row(m) for m in metrics],
    )
    if (routing := evals.routing) is not None:
        for line in routing_lines(routing):
            out.line(line)
    if off is not None:
        for line in off_domain_lines(off):
            out.line(line)
    for note in evals.notes:
        out.note(note)


def print_alone(out: Output, measured: Iterable[Alone]) -> None:
    """What was measured of a base alone, for people."""
    out.table(
        ["metric", "base", "95 % interval", "chance", "rows"],
        [
            [
                m.name,
                f"{m.value:.4g}",
                f"[{m.low:.4g}, {m.high:.4g}]",
                _share(m.baseline),
                str(m.rows),
            ]
            for m in measured
        ],
    )


def routing_lines(routing: RoutingEval) -> list[str]:
    """How a pack is told from others, in words."""
    from specs.shares import wilson

    own = wilson(routing.recall, routing.own_rows)
    others = wilson(routing.false_fires, routing.background_rows)
    lines = [
        f"routing: takes {routing.recall:.1%} of its own {routing.own_rows} held-out prompts "
        f"({own[0]:.1%} to {own[1]:.1%}), {routing.false_fires:.1%} of "
        f"{routing.background_rows} others ({others[0]:.1%} to {others[1]:.1%})"
        + (f", AUROC {routing.auroc:.3f}" if routing.auroc is not None else "")
    ]
    lines += [
        f"  of {other.rows} questions of the pack {other.pack} it takes {other.share:.1%}"
        for other in routing.others or ()
    ]
    return lines


def off_domain_lines(off: OffDomain) -> list[str]:
    """What a pack changes on general prompts, in words."""
    same = "bit for bit the same" if off.identical else "NOT the same"
    return [
        f"base alone, pack loaded: {same} on prompts that do not get the pack",
        f"off its domain ({off.prompts} general prompts, {off.tokens} tokens): KL to the base "
        f"{_nats(off.active)} with the pack active",
        f"  {_nats(off.routed)} where the router decides; it gave the pack {off.taken} of them",
    ]


def verdict(out: Output, failed: Sequence[str]) -> None:
    """Whether `mbpm publish` would take it."""
    if not failed:
        out.line("gates: passed; `mbpm publish` accepts this pack")
    for reason in failed:
        out.warn(f"`mbpm publish` will refuse this pack: {reason}")


def _nats(divergence: Divergence) -> str:
    return (
        f"{divergence.mean:.3g} nats per token (95th percentile {divergence.p95:.3g}, "
        f"99th {divergence.p99:.3g})"
    )


def _row(m: Metric) -> list[str]:
    return [
        m.name,
        f"{m.base:.4g}",
        f"{m.pack:.4g}",
        f"{m.gain:+.4g}",
        f"[{m.gain_low:+.4g}, {m.gain_high:+.4g}]",
        "" if m.p_value is None else f"{m.p_value:.2g}",
        _share(m.baseline),
        str(m.rows),
    ]


def _share(baseline: float | None) -> str:
    return "" if baseline is None else f"{baseline:.3g}"
