"""Measuring a pack beside the base, on the same held-out rows.

Intervals are 95 % percentile intervals of a paired bootstrap over groups (Efron and Tibshirani,
"An Introduction to the Bootstrap", ch. 13): a concept or question counts once however many rows
it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from runtime.chat_format import ChatFormat
from runtime.model import Delta, Model
from specs.evals import Metric
from trainer.batches import Row, batches, encode, pad
from trainer.config import TrainingConfig
from trainer.data.reading import Example, Message
from trainer.forward import token_losses

F64 = npt.NDArray[np.float64]
RESAMPLES = 2000


@dataclass(frozen=True)
class Scores:
    """Per row: summed negative log-likelihood of the answer in nats, and its tokens."""

    nats: F64
    tokens: F64


@torch.no_grad()
def score(model: Model, delta: Delta | None, rows: Sequence[Row], batch_tokens: int) -> Scores:
    """Score the answers of `rows`, in their order."""
    nats, tokens = np.zeros(len(rows)), np.array([float(len(r.tokens) - r.answer) for r in rows])
    index = {id(row): i for i, row in enumerate(rows)}
    for batch in batches(rows, batch_tokens, None):
        losses = token_losses(model, delta, pad(batch, model.device)).double().cpu().numpy()
        ends = np.cumsum([len(r.tokens) - r.answer for r in batch])
        for row, part in zip(batch, np.split(losses, ends[:-1]), strict=True):
            nats[index[id(row)]] = part.sum()
    return Scores(nats, tokens)


def perplexity(rows: Sequence[Row], base: Scores, pack: Scores, seed: int) -> Metric:
    """Perplexity of the answers' tokens; the prompt's do not count."""
    groups = _group_index([r.group for r in rows])
    columns = np.stack([base.nats, pack.nats, base.tokens])

    def statistic(sums: F64) -> tuple[F64, F64]:
        return np.exp(sums[0] / sums[2]), np.exp(sums[1] / sums[2])

    return _metric(
        "response_perplexity",
        "perplexity of held-out answers, response tokens only",
        False,
        columns,
        groups,
        statistic,
        seed,
    )


@dataclass(frozen=True)
class ChoiceRows:
    """Every option of every multiple-choice example as a row of its own."""

    rows: list[Row]
    owner: npt.NDArray[np.intp]
    """Per row: the example it belongs to."""
    right: npt.NDArray[np.bool_]
    """Per row: whether it is the right option."""
    groups: list[str]
    """Per example."""


def choice_rows(
    examples: Sequence[Example], chat: ChatFormat, config: TrainingConfig
) -> ChoiceRows:
    """Lay out the options of examples that have some; those with an overlong one are left out."""
    rows: list[Row] = []
    owner: list[int] = []
    right: list[bool] = []
    groups: list[str] = []
    for example in examples:
        if not example.choices:
            continue
        made = [
            encode(
                Example((*example.messages[:-1], Message("assistant", c)), example.group),
                chat,
                config.activation,
                config.max_length,
            )
            for c in example.choices
        ]
        if example.answer not in example.choices or any(r is None for r in made):
            continue
        rows += [r for r in made if r is not None]
        owner += [len(groups)] * len(made)
        right += [c == example.answer for c in example.choices]
        groups.append(example.group)
    return ChoiceRows(rows, np.array(owner, dtype=np.intp), np.array(right, dtype=bool), groups)


def choice_accuracy(
    kind: str, choices: ChoiceRows, base: Scores, pack: Scores, seed: int
) -> Metric:
    """How often the right option has the highest likelihood per token (`acc_norm` over tokens)."""
    count = len(choices.groups)
    hits = np.zeros((2, count))
    chance = np.zeros(count)
    for which, scores in enumerate((base, pack)):
        per_token = scores.nats / scores.tokens
        for example in range(count):
            mine = np.flatnonzero(choices.owner == example)
            hits[which, example] = choices.right[mine[np.argmin(per_token[mine])]]
            chance[example] = 1 / len(mine)

    def statistic(sums: F64) -> tuple[F64, F64]:
        return sums[0] / sums[2], sums[1] / sums[2]

    metric = _metric(
        f"choice_accuracy_{kind}",
        f"right option of a held-out {kind} question has the highest likelihood per token",
        True,
        np.stack([*hits, np.ones(count)]),
        _group_index(choices.groups),
        statistic,
        seed,
    )
    return metric.model_copy(update={"baseline": float(chance.mean())})


def _group_index(groups: Sequence[str]) -> npt.NDArray[np.intp]:
    """A number per row, the same for rows of one group."""
    return np.unique(np.array(groups), return_inverse=True)[1]


def _metric(
    name: str,
    description: str,
    higher_is_better: bool,
    columns: F64,
    groups: npt.NDArray[np.intp],
    statistic: Callable[[F64], tuple[F64, F64]],
    seed: int,
) -> Metric:
    """Bootstrap a statistic of column sums.

    Args:
        columns: [quantities, rows], summed per group and then per resample.
        statistic: sums [quantities, ...] -> (base, pack).
    """
    count = int(groups.max()) + 1
    per_group = np.stack([np.bincount(groups, weights=c, minlength=count) for c in columns])
    base, pack = statistic(per_group.sum(axis=1))
    rng = np.random.default_rng(seed)
    sign = 1.0 if higher_is_better else -1.0
    gains = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        resampled = per_group[:, rng.integers(0, count, count)].sum(axis=1)
        resampled_base, resampled_pack = statistic(resampled)
        gains[i] = sign * (resampled_pack - resampled_base)
    low, high = np.percentile(gains, [2.5, 97.5])
    return Metric(
        name=name,
        description=description,
        higher_is_better=higher_is_better,
        base=float(base),
        pack=float(pack),
        gain=float(sign * (pack - base)),
        gain_low=float(low),
        gain_high=float(high),
        rows=columns.shape[1],
        groups=count,
    )
