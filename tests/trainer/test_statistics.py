"""Intervals and tests against closed forms and full enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specs.errors import UsageError
from specs.shares import wilson
from trainer.statistics import (
    bootstrap,
    group_index,
    group_sums,
    interval,
    mcnemar_test,
    sign_flip_test,
)

numbers = st.floats(-100, 100, allow_nan=False, width=32)


@given(st.lists(numbers, min_size=1, max_size=9))
def test_sign_flips_are_enumerated_where_they_are_few(values: list[float]) -> None:
    differences = np.array(values, dtype=np.float64)
    observed = abs(math.fsum(values))
    slack = 1e-9 * sum(map(abs, values))
    flips = itertools.product((1, -1), repeat=len(values))
    beyond = [abs(math.fsum(s * v for s, v in zip(f, values))) >= observed - slack for f in flips]  # noqa: B905
    assert sign_flip_test(differences, 0) == pytest.approx(sum(beyond) / len(beyond))


@given(st.lists(numbers, min_size=1, max_size=9))
def test_swapping_the_systems_changes_no_p_value(values: list[float]) -> None:
    differences = np.array(values, dtype=np.float64)
    assert sign_flip_test(differences, 0) == sign_flip_test(-differences, 0)


def test_random_flips_agree_with_the_binomial_test() -> None:
    """Differences of one size make the total a binomial: the p-value is known."""
    for ahead, count in ((30, 40), (22, 40), (25, 50)):
        differences = np.where(np.arange(count) < ahead, 1.0, -1.0)
        tail = sum(math.comb(count, k) for k in range(max(ahead, count - ahead), count + 1))
        expected = min(1.0, 2 * tail / 2**count)
        assert sign_flip_test(differences, 1) == pytest.approx(expected, abs=0.015)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_test(one: int, other: int) -> None:
    total = one + other
    weights = [math.comb(total, k) for k in range(total + 1)]
    # two-sided: everything no likelier than what was seen, which for one half is both tails
    expected = sum(w for w in weights if w <= weights[one]) / 2**total
    assert mcnemar_test(one, other) == pytest.approx(min(1.0, expected))
    assert mcnemar_test(one, other) == mcnemar_test(other, one)


def test_mcnemar_with_very_many_questions() -> None:
    assert mcnemar_test(5000, 5000) == pytest.approx(1.0)
    assert 0 <= mcnemar_test(4000, 6000) < 1e-80


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_wilson_as_published(hits: int, rows: int, low: float, high: float) -> None:
    assert wilson(hits / rows, rows) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 500), st.integers(0, 500))
def test_wilson_holds_the_share(hits: int, more: int) -> None:
    rows = hits + more
    share = hits / rows if rows else 0.0
    low, high = wilson(share, rows)
    assert 0 <= low <= share <= high <= 1


def test_the_bootstrap_of_a_mean_has_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    sums = np.stack([values, np.ones(400)])
    samples = bootstrap(sums, lambda t: t[0] / t[1], seed=1)
    assert samples.shape == (2000,)
    assert samples.std() == pytest.approx(values.std() / 20, rel=0.1)
    low, high = interval(samples)
    assert low == pytest.approx(values.mean() - 1.96 * values.std() / 20, abs=0.03)
    assert high == pytest.approx(values.mean() + 1.96 * values.std() / 20, abs=0.03)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_the_same_seed_gives_the_same_resamples(seed: int, groups: int) -> None:
    sums = np.random.default_rng(seed).random((1, groups))
    one, other = (bootstrap(sums, lambda t: t[0], seed, resamples=50) for _ in range(2))
    assert np.array_equal(one, other)
    assert one.min() >= groups * sums.min() - 1e-9
    assert one.max() <= groups * sums.max() + 1e-9


def test_one_group_has_no_interval() -> None:
    with pytest.raises(UsageError, match=r"form 1 group, and an interval needs 2"):
        bootstrap(np.ones((1, 1)), lambda t: t[0], 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), numbers), min_size=1, max_size=30))
def test_group_sums_add_up(rows: list[tuple[str, float]]) -> None:
    groups = group_index([g for g, _ in rows])
    sums = group_sums(np.array([[v for _, v in rows]]), groups)
    assert sums.shape == (1, len({g for g, _ in rows}))
    assert sums.sum() == pytest.approx(sum(v for _, v in rows), abs=1e-6)
