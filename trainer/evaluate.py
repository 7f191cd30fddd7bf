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

from runtime.chat_format import ChatFormat
from runtime.engine import ActiveAdapter, Engine
from runtime.logprobs import log_softmax
from runtime.prefix import common_prefix
from specs.evals import Metric
from trainer.batches import Row, encode, encode_all
from trainer.config import TrainingConfig
from trainer.data.example import Example, Message

F64 = npt.NDArray[np.float64]
RESAMPLES = 2000


@dataclass(frozen=True)
class Scores:
    """Per row: summed negative log-likelihood of the answer in nats, and its tokens."""

    nats: F64
    tokens: F64


def evaluate(
    engine: Engine, slot: int, held_out: Sequence[Example], chat: ChatFormat, config: TrainingConfig
) -> tuple[Metric, ...]:
    """Everything that is measured of a pack in `slot`: perplexity first, then choice accuracies."""
    both: tuple[Sequence[ActiveAdapter], ...] = ((), (ActiveAdapter(slot),))
    rows = encode_all(held_out, chat, config.activation, config.max_length)
    base, pack = (score(engine, rows, adapters) for adapters in both)
    metrics = [perplexity(rows, base, pack, config.seed)]
    for kind in sorted({e.kind for e in held_out if e.choices}):
        choices = choice_rows([e for e in held_out if e.kind == kind], chat, config)
        if choices.groups:
            base, pack = (score(engine, choices.rows, adapters) for adapters in both)
            metrics.append(choice_accuracy(kind or "all", choices, base, pack, config.seed))
    return tuple(metrics)


def score(engine: Engine, rows: Sequence[Row], adapters: Sequence[ActiveAdapter]) -> Scores:
    """Score the answers of `rows`, in their order, with the engine that people run.

    Rows that follow one another share what was read before their answers: a system message, or the
    whole question when they are the options of one.
    """
    cache = engine.new_cache(max(len(r.tokens) for r in rows))
    nats = np.zeros(len(rows))
    last: Row | None = None
    for index, row in enumerate(rows):
        same = 0 if last is None else _shared(last, row)
        cache.truncate(same)
        for begin, end, active in (
            (same, row.start, ()),
            (max(same, row.start), row.answer - 1, adapters),
        ):
            if begin < end:
                engine.forward(cache, row.tokens[begin:end], active, logits="none")
        logits = engine.forward(
            cache, row.tokens[row.answer - 1 : -1], adapters, logits="all"
        ).logits
        assert logits is not None
        scores = log_softmax(logits)
        nats[index] = -scores[np.arange(len(scores)), row.tokens[row.answer :]].sum()
        last = row
    return Scores(nats, np.array([float(len(r.tokens) - r.answer) for r in rows]))


def _shared(last: Row, row: Row) -> int:
    """How many tokens both rows begin with that were run alike: before either's answer, and where
    the adapter begins to act at different tokens, before both."""
    most = min(last.answer, row.answer) - 1
    if last.start != row.start:
        most = min(most, last.start, row.start)
    return common_prefix(last.tokens, row.tokens, most)


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
