"""The gates a pack must pass before it is published; docs/adr/0013-gates.md has the reasons."""

from __future__ import annotations

from specs.evals import MIN_GROUPS, Evals, Metric, OffDomain, RoutingEval
from specs.pack_toml import Gates
from specs.shares import wilson

MAX_P = 0.05
"""Of the paired test on the main metric: an interval over few groups is too narrow."""


def failed_gates(evals: Evals, gates: Gates) -> list[str]:
    """The gates that evals fail, in words with the numbers; empty when they pass all."""
    failed = _gain(evals.metrics[0], gates) if evals.metrics else ["nothing was measured of it"]
    if evals.metrics and evals.subject is None:
        failed.append("its figures do not say of which adapter and routing card they are")
    if evals.routing is None:
        failed.append("nothing was measured of its routing")
    else:
        failed += _routing(evals.routing, gates)
    if evals.off_domain is None:
        failed.append("nothing was measured of what it changes on general prompts")
    else:
        failed += _harm(evals.off_domain, gates)
    return failed


def told_gates(evals: Evals, gates: Gates) -> list[str]:
    """What an index line tells: the gates that evals fail, and the default ones that they fail
    where the author set laxer bounds."""
    defaults = Gates()
    strictest = {
        name: (max if name.startswith("min_") else min)(
            getattr(gates, name), getattr(defaults, name)
        )
        for name in Gates.model_fields
    }
    return failed_gates(evals, Gates(**strictest))


def unmeasured(evals: Evals) -> bool:
    """Whether evals lack what a gate looks at."""
    parts = (evals.metrics, evals.subject, evals.routing, evals.off_domain)
    return not all(parts)


def _gain(main: Metric, gates: Gates) -> list[str]:
    failed = []
    if not main.gain_low > gates.min_gain:
        failed.append(
            f"no gain shown on `{main.name}` (gain {main.gain:.4g}, interval "
            f"{main.gain_low:.4g} to {main.gain_high:.4g}, must begin above {gates.min_gain:.4g})"
        )
    better = main.pack > main.base if main.higher_is_better else main.pack < main.base
    if not better:
        failed.append(
            f"`{main.name}` of the pack ({main.pack:.4g}) is not better than the base's "
            f"({main.base:.4g})"
        )
    if not main.gain_low <= main.gain <= main.gain_high:
        failed.append(f"the gain on `{main.name}` lies outside its own interval")
    if main.groups < MIN_GROUPS:
        failed.append(
            f"`{main.name}` was measured on {main.groups} groups of rows, and fewer than "
            f"{MIN_GROUPS} show no gain that could not be chance"
        )
    elif main.p_value is None:
        failed.append(f"whether the gain on `{main.name}` is chance was not tested")
    elif main.p_value > MAX_P:
        failed.append(
            f"the gain on `{main.name}` may be chance (p = {main.p_value:.2g}, must be at most "
            f"{MAX_P:.2g})"
        )
    return failed


def _routing(routing: RoutingEval, gates: Gates) -> list[str]:
    failed = []
    if routing.own_rows == 0:
        failed.append("its routing was measured on no questions of its own")
    else:
        low, high = wilson(routing.recall, routing.own_rows)
        if low < gates.min_recall:
            failed.append(
                f"the router gives it only {routing.recall:.1%} of {routing.own_rows} held-out "
                f"questions of its own ({low:.1%} to {high:.1%}, must begin at "
                f"{gates.min_recall:.1%} or above)"
            )
    if routing.background_rows == 0:
        failed.append("its routing was measured on no general prompts")
    else:
        low, high = wilson(routing.false_fires, routing.background_rows)
        if high > gates.max_false_fires:
            failed.append(
                f"the router gives it {routing.false_fires:.1%} of {routing.background_rows} "
                f"general prompts ({low:.1%} to {high:.1%}, must end at "
                f"{gates.max_false_fires:.1%} or below)"
            )
    for other in routing.others or ():
        low, high = wilson(other.share, other.rows)
        if low > gates.max_taken:
            failed.append(
                f"it takes {other.share:.1%} of {other.rows} questions of the pack `{other.pack}` "
                f"({low:.1%} to {high:.1%}, must begin at {gates.max_taken:.1%} or below)"
            )
    return failed


def _harm(off: OffDomain, gates: Gates) -> list[str]:
    failed = []
    if not off.identical:
        failed.append("with it loaded and not active the base gave other logits than without it")
    for moved, bound, where in (
        (off.routed, gates.max_kl, "where the router decides"),
        (off.active, gates.max_active_kl, "with it active on all of them"),
    ):
        if moved.mean > bound:
            failed.append(
                f"it moves the base by {moved.mean:.3g} nats per token on {off.prompts} general "
                f"prompts {where} (at most {bound:.3g})"
            )
    routed, active = off.suite_routed, off.suite_active
    if routed.gain_low < -gates.max_general_loss:
        failed.append(
            f"on general questions it may lose {-routed.gain_low:.1%} of accuracy where the router "
            f"decides ({_change(routed)}; at most {gates.max_general_loss:.1%})"
        )
    if active.gain_high < -gates.max_active_loss:
        failed.append(
            f"on general questions it loses at least {-active.gain_high:.1%} of accuracy with it "
            f"active on all of them ({_change(active)}; at most {gates.max_active_loss:.1%})"
        )
    return failed


def _change(suite: Metric) -> str:
    return f"{suite.base:.1%} -> {suite.pack:.1%}, {suite.rows} rows"
