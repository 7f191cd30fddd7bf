"""Intervals and tests for paired measurements.

Intervals are 95 % percentile intervals of a bootstrap over groups (Efron and Tibshirani, "An
Introduction to the Bootstrap", ch. 13); tests are the sign-flip permutation test (Fisher, "The
Design of Experiments", ch. 3) and McNemar's in its exact form. All are functions of their arguments
and a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from specs.errors import UsageError

F64 = npt.NDArray[np.float64]
Groups = npt.NDArray[np.intp]

RESAMPLES = 2000
FLIPS = 10_000
EXACT_GROUPS = 12
"""Up to so many groups every one of the 2**n sign flips is looked at."""
MIN_GROUPS = 2
"""A bootstrap over fewer has no interval."""
_PIECE = 1 << 20
"""Random numbers drawn at once."""


def group_index(groups: Sequence[str]) -> Groups:
    """A number per row, the same for rows of one group."""
    return np.unique(np.array(groups), return_inverse=True)[1]


def group_sums(columns: F64, groups: Groups) -> F64:
    """[quantities, rows] -> [quantities, groups]."""
    count = int(groups.max()) + 1
    return np.stack([np.bincount(groups, weights=c, minlength=count) for c in columns])


def check_groups(count: int) -> None:
    """Raise UsageError where so many groups have no interval."""
    if count < MIN_GROUPS:
        raise UsageError(
            f"the held-out rows form {count} group, and an interval needs {MIN_GROUPS} or more",
            hint="rows with the same `group`, or else the same prompt, form one group",
        )


def bootstrap(
    sums: F64, statistic: Callable[[F64], F64], seed: int, resamples: int = RESAMPLES
) -> F64:
    """The statistic of resampled groups.

    Args:
        sums: [quantities, groups], as `group_sums` gives them.
        statistic: totals [quantities, n] -> [..., n].

    Returns:
        [..., resamples].

    Raises:
        UsageError: there are too few groups for an interval.
    """
    groups = sums.shape[1]
    check_groups(groups)
    rng = np.random.default_rng(seed)
    share = np.full(groups, 1 / groups)
    at_once = max(1, _PIECE // groups)
    totals = [
        sums @ rng.multinomial(groups, share, size=min(at_once, resamples - done)).T
        for done in range(0, resamples, at_once)
    ]
    return statistic(np.concatenate(totals, axis=1))


def interval(samples: F64) -> tuple[float, float]:
    """The middle 95 % of samples [n]."""
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def sign_flip_test(differences: F64, seed: int) -> float:
    """Two-sided p-value of "the two systems may be swapped in any group".

    Args:
        differences: [groups] sums of one system minus the other.

    Returns:
        The share of sign flips whose total is at least as far from 0; exact up to EXACT_GROUPS
        groups, else from FLIPS random ones with the observed one counted in (Phipson and Smyth,
        2010), so that it is never 0.
    """
    count = len(differences)
    # rounding must not decide whether a flip that changes nothing counts
    observed = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()
    if count <= EXACT_GROUPS:
        bits = np.arange(1 << count)[:, None] >> np.arange(count) & 1
        return float(np.mean(np.abs((1 - 2 * bits) @ differences) >= observed))
    rng = np.random.default_rng(seed)
    at_once = max(1, _PIECE // count)
    beyond = 0
    for done in range(0, FLIPS, at_once):
        signs = rng.integers(0, 2, (min(at_once, FLIPS - done), count)) * 2 - 1
        beyond += int(np.sum(np.abs(signs @ differences) >= observed))
    return (beyond + 1) / (FLIPS + 1)


def mcnemar_test(only_one: int, only_other: int) -> float:
    """Exact two-sided p-value that either system alone is right equally often.

    Args:
        only_one, only_other: questions that only one of the systems answers rightly.
    """
    count, fewer = only_one + only_other, min(only_one, only_other)
    tail = term = 1
    for k in range(fewer):
        term = term * (count - k) // (k + 1)
        tail += term
    ways: int = 2**count
    return min(1.0, 2 * tail / ways)
