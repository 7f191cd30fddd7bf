"""Sampling: what each filter keeps, and that a seed decides everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from runtime.engine import F32
from runtime.sampling import Sampling, candidates, choose, penalize
from specs.errors import UsageError

ROWS = arrays(
    np.float32,
    st.integers(2, 60),
    elements=st.floats(-30, 30, width=32, allow_nan=False, allow_infinity=False),
)
OPEN = Sampling(repetition_penalty=1, temperature=1, top_k=0, top_p=1, min_p=0)


def softmax(row: F32, temperature: float = 1.0) -> np.ndarray:
    scaled = row.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def drawn(row: F32, **settings: float) -> dict[int, float]:
    ids, weights = candidates(row, Sampling(**{**vars(OPEN), **settings}))
    return dict(zip(ids.tolist(), weights.tolist(), strict=True))


@given(ROWS)
def test_without_filters_the_distribution_is_the_softmax(row: F32) -> None:
    found = drawn(row)
    assert set(found) == set(range(len(row)))
    np.testing.assert_allclose([found[i] for i in range(len(row))], softmax(row), atol=1e-9)


@given(ROWS, st.floats(0.1, 5))
def test_temperature_divides_the_logits(row: F32, temperature: float) -> None:
    found = drawn(row, temperature=temperature)
    np.testing.assert_allclose(
        [found[i] for i in range(len(row))], softmax(row, temperature), atol=1e-9
    )


@given(ROWS, st.integers(1, 70))
def test_top_k_keeps_the_k_most_likely(row: F32, k: int) -> None:
    found = drawn(row, top_k=k)
    assert len(found) == min(k, len(row))
    left_out = [row[i] for i in range(len(row)) if i not in found]
    assert not left_out or max(left_out) <= min(row[i] for i in found)


@given(ROWS, st.floats(0.05, 0.99))
def test_top_p_keeps_the_fewest_that_reach_p(row: F32, p: float) -> None:
    found = drawn(row, top_p=p)
    share = np.sort(softmax(row)[list(found)])[::-1]
    assert share.sum() >= p - 1e-9
    assert share[:-1].sum() < p + 1e-9


@given(ROWS, st.floats(0.0, 1.0))
def test_min_p_drops_what_is_far_below_the_best(row: F32, share: float) -> None:
    found = drawn(row, min_p=share)
    likely = softmax(row)
    for i, probability in enumerate(likely):
        if probability >= share * likely.max() * (1 + 1e-6):
            assert i in found
        if probability < share * likely.max() * (1 - 1e-6):
            assert i not in found


@given(ROWS, st.integers(0, 2**31))
def test_temperature_zero_takes_the_most_likely_whatever_the_seed(row: F32, seed: int) -> None:
    greedy = Sampling(repetition_penalty=1, temperature=0, seed=seed)
    assert row[choose(row, (), greedy, greedy.generator())] == row.max()


@given(ROWS, st.integers(0, 2**31), st.floats(0.2, 3))
def test_the_same_seed_draws_the_same_tokens(row: F32, seed: int, temperature: float) -> None:
    settings = Sampling(temperature=temperature, seed=seed)

    def answer() -> list[int]:
        generator, seen = settings.generator(), []
        for _ in range(8):
            seen.append(choose(row, seen, settings, generator))
        return seen

    assert answer() == answer()


def test_draws_follow_the_distribution() -> None:
    row = np.log(np.array([0.6, 0.3, 0.1], dtype=np.float32))
    generator = np.random.default_rng(0)
    counts = np.bincount([choose(row, (), OPEN, generator) for _ in range(5000)], minlength=3)
    np.testing.assert_allclose(counts / 5000, [0.6, 0.3, 0.1], atol=0.03)


@given(ROWS, st.floats(1.01, 5), st.data())
def test_the_penalty_lowers_seen_tokens_and_no_others(
    row: F32, penalty: float, data: st.DataObject
) -> None:
    seen = data.draw(st.sets(st.integers(0, len(row) - 1)))
    before = row.copy()
    after = penalize(row, seen, penalty)
    np.testing.assert_array_equal(row, before)
    for i in range(len(row)):
        if i not in seen:
            assert after[i] == row[i]
        elif abs(row[i]) > 1e-30:
            assert after[i] < row[i]


def test_the_penalty_counts_a_token_once() -> None:
    row = np.array([4.0, -4.0], dtype=np.float32)
    np.testing.assert_array_equal(penalize(row, [0, 0, 0, 1], 2.0), [2.0, -8.0])


def test_a_forbidden_token_is_never_drawn() -> None:
    row = np.array([0.0, -np.inf, 0.0], dtype=np.float32)
    generator = np.random.default_rng(1)
    for settings in (OPEN, Sampling(), Sampling(temperature=0)):
        assert 1 not in {choose(row, (), settings, generator) for _ in range(50)}


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("temperature", -0.1, "--temperature"),
        ("temperature", float("nan"), "--temperature"),
        ("top_k", -1, "--top-k"),
        ("top_p", 0.0, "--top-p"),
        ("top_p", 1.5, "--top-p"),
        ("min_p", -0.5, "--min-p"),
        ("repetition_penalty", 0.0, "--repetition-penalty"),
        ("seed", -1, "--seed"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_flag(field: str, value: float, flag: str) -> None:
    with pytest.raises(UsageError, match=flag):
        Sampling(**{field: value})
