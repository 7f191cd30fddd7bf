"""The gates a pack must pass before it is published; docs/adr/0013-gates.md has the reasons."""

from __future__ import annotations

from specs.evals import Evals, Metric, OffDomain, RoutingEval
from specs.pack_toml import Gates

MIN_GROUPS = 2
"""A bootstrap over fewer groups has no interval."""


def failed_gates(evals: Evals, gates: Gates) -> list[str]:
    """The gates that evals fail, in words with the numbers; empty when they pass all."""
    failed = _gain(evals.metrics[0], gates) if evals.metrics else ["nothing was measured of it"]
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
        name: (max if name == "min_gain" else min)(getattr(gates, name), getattr(defaults, name))
        for name in Gates.model_fields
    }
    return failed_gates(evals, Gates(**strictest))


def unmeasured(evals: Evals) -> bool:
    """Whether evals lack what a gate looks at."""
    return not evals.metrics or evals.routing is None or evals.off_domain is None


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
            f"`{main.name}` was measured on {main.groups} group, and an interval needs {MIN_GROUPS}"
        )
    return failed


def _routing(routing: RoutingEval, gates: Gates) -> list[str]:
    failed = []
    if routing.background_rows == 0:
        failed.append("its routing was measured on no general prompts")
    if routing.false_fires > gates.max_false_fires:
        failed.append(
            f"the router gives it {routing.false_fires:.1%} of {routing.background_rows} general "
            f"prompts (at most {gates.max_false_fires:.1%} is its share)"
        )
    for other in routing.others or ():
        if other.share > gates.max_taken:
            failed.append(
                f"it takes {other.share:.1%} of {other.rows} questions of the pack `{other.pack}` "
                f"(at most {gates.max_taken:.1%} is its share)"
            )
    return failed


def _harm(off: OffDomain, gates: Gates) -> list[str]:
    failed = []
    if not off.identical:
        failed.append("with it loaded and not active the base gave other logits than without it")
    if off.routed.mean > gates.max_kl:
        failed.append(
            f"it moves the base by {off.routed.mean:.3g} nats per token on {off.prompts} general "
            f"prompts where the router decides (at most {gates.max_kl:.3g})"
        )
    suite = off.suite_routed
    if suite.gain_low < -gates.max_general_loss:
        failed.append(
            f"on general questions it may lose {-suite.gain_low:.1%} of accuracy where the router "
            f"decides ({suite.base:.1%} -> {suite.pack:.1%}, {suite.rows} rows; at most "
            f"{gates.max_general_loss:.1%})"
        )
    return failed
