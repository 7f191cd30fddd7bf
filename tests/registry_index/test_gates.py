"""The gates: what passes, what fails, and that the reasons carry the numbers."""

from __future__ import annotations

from typing import Any

import pytest

from registry_index.gates import failed_gates, told_gates
from specs.evals import Divergence, Evals, RoutingEval, Taken
from specs.pack_toml import Gates
from tests.support.packs import evals, off_domain

ROUTING: dict[str, Any] = {
    "recall": 0.9, "false_fires": 0.02, "own_rows": 50, "background_rows": 200,
}  # fmt: skip


def routed(**changes: Any) -> Evals:
    return evals("law").model_copy(update={"routing": RoutingEval(**(ROUTING | changes))})


def harmful(**changes: Any) -> Evals:
    return evals("law").model_copy(update={"off_domain": off_domain(**changes)})


def test_a_good_pack_passes() -> None:
    assert failed_gates(evals("law"), Gates()) == []


def test_the_author_can_ask_for_more_gain() -> None:
    assert failed_gates(evals("law"), Gates(min_gain=7.9)) == []
    (reason,) = failed_gates(evals("law"), Gates(min_gain=8.0))
    assert "must begin above 8" in reason


def test_a_gain_that_may_be_chance() -> None:
    assert failed_gates(evals("law", groups=6), Gates()) == []
    (reason,) = failed_gates(evals("law", groups=5), Gates())
    assert "measured on 5 groups of rows, and fewer than 6" in reason
    assert failed_gates(evals("law", p_value=0.05), Gates()) == []
    (reason,) = failed_gates(evals("law", p_value=0.12), Gates())
    assert "may be chance (p = 0.12, must be at most 0.05)" in reason
    (reason,) = failed_gates(evals("law", p_value=None), Gates())
    assert "was not tested" in reason


def test_routing_that_takes_general_prompts() -> None:
    assert failed_gates(routed(false_fires=0.04), Gates()) == []
    (reason,) = failed_gates(routed(false_fires=0.06), Gates())
    assert reason == (
        "the router gives it 6.0% of 200 general prompts (3.5% to 10.2%, must end at 8.0% or below)"
    )
    assert failed_gates(routed(false_fires=0.06), Gates(max_false_fires=0.11)) == []


def test_few_general_prompts_prove_little() -> None:
    assert failed_gates(routed(false_fires=0.0, background_rows=50), Gates()) == []
    (reason,) = failed_gates(routed(false_fires=0.0, background_rows=40), Gates())
    assert "(0.0% to 8.8%, must end at 8.0% or below)" in reason


def test_routing_that_takes_too_few_of_its_own_questions() -> None:
    assert failed_gates(routed(recall=0.4), Gates()) == []
    (reason,) = failed_gates(routed(recall=0.3), Gates())
    assert reason == (
        "the router gives it only 30.0% of 50 held-out questions of its own (19.1% to 43.8%, must "
        "begin at 25.0% or above)"
    )
    assert failed_gates(routed(recall=0.3), Gates(min_recall=0.1)) == []


def test_a_pack_that_is_used_by_name_only() -> None:
    unreachable = routed(recall=0.0, own_rows=40)
    assert "only 0.0% of 40" in failed_gates(unreachable, Gates())[0]
    by_name = Gates(min_recall=0.0)
    assert failed_gates(unreachable, by_name) == []
    assert "only 0.0% of 40" in told_gates(unreachable, by_name)[0]
    (reason,) = failed_gates(routed(own_rows=0), by_name)
    assert "on no questions of its own" in reason


def test_routing_measured_on_nothing() -> None:
    (reason,) = failed_gates(routed(background_rows=0, false_fires=0.0), Gates())
    assert "on no general prompts" in reason


def test_routing_that_takes_another_pack_s_questions() -> None:
    others = (Taken(pack="tax", rows=16, share=0.25), Taken(pack="tenancy", rows=16, share=0.125))
    (reason,) = failed_gates(routed(others=others), Gates())
    assert reason == (
        "it takes 25.0% of 16 questions of the pack `tax` (10.2% to 49.5%, must begin at 10.0% or "
        "below)"
    )
    assert failed_gates(routed(others=others), Gates(max_taken=0.2)) == []


def test_one_question_of_another_pack_proves_little() -> None:
    others = (Taken(pack="tax", rows=2, share=0.5),)
    assert failed_gates(routed(others=others), Gates()) == []


@pytest.mark.parametrize(("mean", "passes"), [(0.1, True), (0.11, False)])
def test_divergence_where_the_router_decides(mean: float, passes: bool) -> None:
    failed = failed_gates(harmful(routed=Divergence(mean=mean, p95=1.0, p99=2.0)), Gates())
    assert (failed == []) is passes
    assert passes or "0.11 nats per token on 50 general prompts" in failed[0]


@pytest.mark.parametrize(("mean", "passes"), [(2.0, True), (2.1, False)])
def test_divergence_with_the_pack_active(mean: float, passes: bool) -> None:
    moved = harmful(active=Divergence(mean=mean, p95=9.0, p99=9.0))
    failed = failed_gates(moved, Gates())
    assert (failed == []) is passes
    assert passes or "2.1 nats per token on 50 general prompts with it active on all" in failed[0]
    assert failed_gates(moved, Gates(max_active_kl=3.0)) == []


def test_what_the_general_suite_may_lose() -> None:
    suite = off_domain().suite_routed.model_copy(update={"gain": -0.04, "gain_low": -0.06})
    (reason,) = failed_gates(harmful(suite_routed=suite), Gates())
    assert "may lose 6.0% of accuracy" in reason
    assert failed_gates(harmful(suite_routed=suite), Gates(max_general_loss=0.06)) == []


@pytest.mark.parametrize(("high", "passes"), [(-0.05, True), (-0.06, False)])
def test_what_the_general_suite_may_lose_with_the_pack_active(high: float, passes: bool) -> None:
    changes = {"pack": 0.3, "gain": -0.2, "gain_low": -0.3, "gain_high": high}
    suite = off_domain().suite_active.model_copy(update=changes)
    failed = failed_gates(harmful(suite_active=suite), Gates())
    assert (failed == []) is passes
    assert passes or "loses at least 6.0% of accuracy with it active" in failed[0]
    assert failed_gates(harmful(suite_active=suite), Gates(max_active_loss=0.2)) == []


def test_figures_of_nobody_knows_what() -> None:
    (reason,) = failed_gates(evals("law").model_copy(update={"subject": None}), Gates())
    assert "do not say of which adapter" in reason


def test_a_base_that_a_loaded_pack_changes() -> None:
    (reason,) = failed_gates(harmful(identical=False), Gates(max_kl=100, max_general_loss=1.0))
    assert "other logits" in reason


def test_every_reason_is_told() -> None:
    bad = evals("law", gain_low=-1.0).model_copy(update={"routing": None, "off_domain": None})
    assert len(failed_gates(bad, Gates())) == 3


def test_a_bound_that_the_author_laxed_is_told() -> None:
    taken = (Taken(pack="tax", rows=16, share=0.25),)
    lax = Gates(max_taken=0.5)
    assert failed_gates(routed(others=taken), lax) == []
    (reason,) = told_gates(routed(others=taken), lax)
    assert "must begin at 10.0%" in reason
    assert told_gates(evals("law"), Gates(max_kl=9.0)) == []
    (stricter,) = told_gates(evals("law"), Gates(min_gain=8.0))
    assert "must begin above 8" in stricter
