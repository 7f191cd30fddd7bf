"""One quantity measured on rows, for the base and a pack beside it: value, interval and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from specs.evals import Metric
from specs.shares import wilson
from trainer.statistics import (
    bootstrap,
    group_index,
    group_sums,
    interval,
    mcnemar_test,
    sign_flip_test,
)

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Alone:
    """A quantity of the base alone, with its 95 % interval."""

    name: str
    description: str
    value: float
    low: float
    high: float
    baseline: float | None
    rows: int
    groups: int


@dataclass(frozen=True)
class Measured:
    """What every row gave under each system; the base's values come first, then the pack's."""

    name: str
    description: str
    kind: Literal["perplexity", "share"]
    """exp(sum of values / sum of weights), where less is better, or the quotient itself."""
    values: F64
    """[systems, rows]: nats of a row's tokens, or 1 where it is right and 0 where not, or between.
    """
    weights: F64
    """[rows]: tokens, or 1."""
    groups: Sequence[str]
    """Per row."""
    baseline: float | None = None

    def metric(self, seed: int) -> Metric:
        """The pack beside the base.

        Raises:
            UsageError: there are too few groups for an interval.
        """
        sums, groups = self._sums()
        base, pack = self._statistic(sums.sum(axis=1, keepdims=True))[:, 0]
        sign = 1.0 if self.kind == "share" else -1.0
        resampled = bootstrap(sums, self._statistic, seed)
        low, high = interval(sign * (resampled[1] - resampled[0]))
        p_value, test = self._test(sums, seed)
        return Metric(
            name=self.name,
            description=self.description,
            higher_is_better=self.kind == "share",
            base=float(base),
            pack=float(pack),
            gain=float(sign * (pack - base)),
            gain_low=low,
            gain_high=high,
            rows=len(self.weights),
            groups=groups,
            baseline=self.baseline,
            p_value=p_value,
            test=test,
        )

    def alone(self, seed: int) -> Alone:
        """The base alone; raises as `metric`.

        A share of rows that are their own groups, each right or wrong, has Wilson's interval, which
        resampling does not reach where all rows are alike.
        """
        sums, groups = self._sums()
        value = float(self._statistic(sums.sum(axis=1, keepdims=True))[0, 0])
        low, high = interval(bootstrap(sums, self._statistic, seed)[0])
        if self._counts(groups):
            low, high = wilson(value, groups)
        return Alone(
            self.name, self.description, value, low, high, self.baseline, len(self.weights), groups
        )

    def where(self, pack: npt.NDArray[np.bool_], name: str, description: str) -> Measured:
        """The same rows where the pack takes part only in those that are marked [rows]."""
        routed = np.where(pack, self.values[1], self.values[0])
        return replace(
            self,
            name=name,
            description=description,
            values=np.stack([self.values[0], routed]),
        )

    def _counts(self, groups: int) -> bool:
        """Whether it counts independent rows that are right or wrong and nothing between."""
        right_or_wrong = bool(((self.values == 0) | (self.values == 1)).all())
        return self.kind == "share" and groups == len(self.weights) and right_or_wrong

    def _sums(self) -> tuple[F64, int]:
        """[systems + 1, groups]: values of every system, and the weights."""
        sums = group_sums(np.stack([*self.values, self.weights]), group_index(self.groups))
        return sums, sums.shape[1]

    def _statistic(self, totals: F64) -> F64:
        """[systems + 1, n] -> [systems, n]."""
        quotient: F64 = totals[:-1] / totals[-1]
        return np.exp(quotient) if self.kind == "perplexity" else quotient

    def _test(self, sums: F64, seed: int) -> tuple[float, Literal["sign-flip", "McNemar"]]:
        if self._counts(sums.shape[1]):
            base, pack = self.values[0] > 0.5, self.values[1] > 0.5
            return mcnemar_test(int((base & ~pack).sum()), int((pack & ~base).sum())), "McNemar"
        return sign_flip_test(sums[1] - sums[0], seed), "sign-flip"
