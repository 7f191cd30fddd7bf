"""Metrics against what can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from specs.errors import UsageError
from trainer.measured import Measured


def perplexity(
    base: Sequence[float], pack: Sequence[float], groups: Sequence[str] | None = None
) -> Measured:
    """Rows of four tokens each."""
    return Measured(
        "p", "", "perplexity",
        np.array([base, pack], dtype=np.float64),
        np.full(len(base), 4.0),
        groups or [str(i) for i in range(len(base))],
    )  # fmt: skip


def share(
    base: Sequence[float], pack: Sequence[float], groups: Sequence[str] | None = None
) -> Measured:
    return Measured(
        "s", "", "share",
        np.array([base, pack], dtype=np.float64),
        np.ones(len(base)),
        groups or [str(i) for i in range(len(base))],
        0.25,
    )  # fmt: skip


def test_perplexity_is_the_exponential_of_the_mean_over_tokens() -> None:
    metric = perplexity([4, 8, 12], [2, 4, 6]).metric(0)
    assert metric.base == pytest.approx(np.exp(2))
    assert metric.pack == pytest.approx(np.exp(1))
    assert metric.gain == pytest.approx(np.exp(2) - np.exp(1))
    assert not metric.higher_is_better
    assert (metric.rows, metric.groups) == (3, 3)
    assert 0 < metric.gain_low <= metric.gain <= metric.gain_high
    # the two flips of eight that change every sign or none
    assert (metric.p_value, metric.test) == (0.25, "sign-flip")


def test_the_interval_includes_no_gain_when_there_is_none() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(8, 1, 200)
    metric = perplexity(list(base), list(base + rng.normal(0, 1, 200))).metric(0)
    assert metric.gain_low < 0 < metric.gain_high
    assert metric.p_value is not None
    assert metric.p_value > 0.05


def test_rows_of_one_group_count_as_one_in_the_interval() -> None:
    """The same ten numbers, once as ten groups and once repeated: repeats add no certainty."""
    rng = np.random.default_rng(1)
    base, pack = rng.normal(8, 1, 10), rng.normal(7, 1, 10)
    groups = [str(i) for i in range(10)]
    once = perplexity(list(base), list(pack), groups).metric(0)
    many = perplexity(list(np.tile(base, 20)), list(np.tile(pack, 20)), groups * 20).metric(0)
    assert many.groups == once.groups == 10
    assert many.gain_low == pytest.approx(once.gain_low, rel=1e-6)
    assert many.gain_high == pytest.approx(once.gain_high, rel=1e-6)
    assert many.p_value == once.p_value


def test_accuracies_of_rows_that_are_their_own_group_are_tested_by_mcnemar() -> None:
    metric = share([1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 1, 1, 1, 1, 1, 0]).metric(0)
    # one question only the base answers, five only the pack: 2 (1 + 6) / 64
    assert (metric.p_value, metric.test) == (pytest.approx(14 / 64), "McNemar")
    assert (metric.base, metric.pack, metric.gain) == (0.25, 0.75, 0.5)
    assert metric.baseline == 0.25


def test_accuracies_of_shared_groups_are_tested_by_group() -> None:
    metric = share([0, 0, 0, 0], [1, 1, 1, 1], ["a", "a", "b", "b"]).metric(0)
    assert (metric.p_value, metric.test) == (0.5, "sign-flip")


def test_where_the_router_decides_the_others_keep_the_base() -> None:
    routed = share([1, 1, 0, 0], [0, 0, 1, 1]).where(np.array([True, False, True, False]), "r", "")
    metric = routed.metric(0)
    assert (metric.name, metric.base, metric.pack) == ("r", 0.5, 0.5)
    nobody = share([1, 0], [0, 1]).where(np.zeros(2, dtype=bool), "r", "").metric(0)
    assert (nobody.gain, nobody.gain_low, nobody.gain_high) == (0.0, 0.0, 0.0)


def test_the_base_alone() -> None:
    alone = share([1, 0, 1, 1], [0, 0, 0, 0]).alone(0)
    assert alone.value == 0.75
    sure = share([1, 1, 1], [0, 0, 0]).alone(0)
    assert (sure.value, sure.high) == (1.0, 1.0)
    assert sure.low == pytest.approx(0.4385, abs=1e-3)  # three of three prove little
    assert 0 <= alone.low <= 0.75 <= alone.high <= 1


def test_one_row_has_no_interval() -> None:
    with pytest.raises(UsageError, match="an interval needs 2"):
        perplexity([4], [2]).metric(0)


def test_rows_that_are_partly_right_are_not_counted_as_right_or_wrong() -> None:
    metric = share([0.6, 0.7, 0.8], [0.7, 0.8, 0.9]).metric(0)
    assert (metric.p_value, metric.test) == (0.25, "sign-flip")
    alone = share([0.2, 0.4], [0, 0]).alone(0)
    assert 0.2 <= alone.low < alone.value < alone.high <= 0.4
