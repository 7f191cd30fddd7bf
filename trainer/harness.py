"""Tasks of lm-evaluation-harness (EleutherAI) by its own API; an optional extra, `mbpm[lm-eval]`.

What a task gives as context is asked as a question in the base's chat format, and what it gives as
continuation is the answer: that is how bases and packs are used here. Figures therefore are those
of a chat, and differ from published ones of bare text.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from specs.errors import MbpmError, NotFoundError, UsageError
from trainer.batches import Row
from trainer.data.example import Example
from trainer.evaluate import Setting, Watch, answers
from trainer.measured import Measured
from trainer.scoring import Adapters, Tick, in_order, readers, unwatched

MAX_NEW_TOKENS = 256
"""Tokens of an answer where a task sets no other limit."""


def harness(
    setting: Setting, tasks: Sequence[str], limit: int | None, watch: Watch
) -> list[Measured]:
    """Run tasks under every system; each metric between 0 and 1 of their rows is one quantity.

    Args:
        tasks: Names of tasks, or paths of YAML files that define some.
        limit: Most rows of each.

    Raises:
        UsageError: lm-evaluation-harness is not installed, or cannot run a task.
        NotFoundError: there is no such task.
    """
    check_installed()
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    for task in tasks:
        if task not in manager.all_tasks and not task.endswith((".yaml", ".yml")):
            raise NotFoundError(
                f"lm-evaluation-harness has no task `{task}`", hint="`lm-eval ls tasks` lists them"
            )
    samples: list[dict[str, list[dict[str, Any]]]] = []
    directions: dict[str, dict[str, bool | None]] = {}
    for number, adapters in enumerate(setting.systems):
        whose = "base" if number == 0 else "pack"
        try:
            found = simple_evaluate(
                model=_model(setting, adapters, watch, whose),
                tasks=list(tasks),
                limit=limit,
                bootstrap_iters=0,
                task_manager=manager,
                random_seed=setting.seed,
                numpy_random_seed=setting.seed,
                torch_random_seed=setting.seed,
                fewshot_random_seed=setting.seed,
            )
        except MbpmError:
            raise
        except Exception as error:
            # whatever a task, its data or the network may raise
            raise UsageError(
                f"lm-evaluation-harness cannot run {', '.join(tasks)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        assert found is not None
        samples.append(found["samples"])
        directions = found.get("higher_is_better", {})
    return [
        measured
        for task in sorted(samples[0])
        for measured in _measured(task, [s[task] for s in samples], directions.get(task, {}))
    ]


def check_installed() -> None:
    """Raise UsageError where lm-evaluation-harness is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise UsageError(
            "`--task` needs lm-evaluation-harness, which is not installed",
            hint="`pip install 'mbpm[lm-eval]'`",
        )


def _measured(
    task: str, runs: Sequence[Sequence[dict[str, Any]]], higher: Mapping[str, bool | None]
) -> list[Measured]:
    """The metrics of one task of which more is better, rows of all runs in the same order."""
    ordered = [sorted(run, key=lambda row: (row["doc_id"], row.get("filter", ""))) for run in runs]
    first = ordered[0][0]
    filters = sorted({row.get("filter", "none") for row in ordered[0]})
    made = []
    for filter_ in filters:
        rows = [[r for r in run if r.get("filter", "none") == filter_] for run in ordered]
        for metric in first["metrics"]:
            if higher.get(metric) is False:
                continue
            values = [[row.get(metric) for row in run] for run in rows]
            if not all(isinstance(v, int | float) and 0 <= v <= 1 for run in values for v in run):
                continue
            suffix = "" if filter_ == "none" else f" ({filter_})"
            made.append(
                Measured(
                    f"{task} {metric}{suffix}",
                    f"{metric} of the lm-evaluation-harness task {task}, asked as a chat",
                    "share",
                    np.array(values, dtype=np.float64),
                    np.ones(len(values[0])),
                    [str(row["doc_id"]) for row in rows[0]],
                    _chance(rows[0]) if metric.startswith("acc") else None,
                )
            )
    return made


def _chance(rows: Sequence[dict[str, Any]]) -> float | None:
    """What chance gets where every row has options; None where one has not."""
    options = [len(row.get("arguments", ())) for row in rows]
    return float(np.mean([1 / n for n in options])) if min(options) > 1 else None


def _model(setting: Setting, adapters: Adapters, watch: Watch, whose: str) -> Any:
    """A base with some adapters as the harness's `LM`."""
    from lm_eval.api.model import LM

    alone = replace(setting, systems=(adapters,))

    class Chat(LM):  # type: ignore[misc]
        """Answers the three kinds of requests that tasks make."""

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            tick = watch(f"tasks: likelihoods ({whose})", len(requests))
            rows = [_row(alone, *request.args) for request in requests]
            return _likelihoods(alone, rows, adapters, tick)

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            tick = watch(f"tasks: texts ({whose})", len(requests))
            totals = []
            for request in requests:
                rows = _windows(alone, request.args[0])
                totals.append(sum(n for n, _ in _likelihoods(alone, rows, adapters, unwatched)))
                tick(1)
            return totals

        def generate_until(self, requests: list[Any]) -> list[str]:
            tick = watch(f"tasks: answers ({whose})", len(requests))
            return [_answer(alone, r.args[0], r.args[1], tick) for r in requests]

    return Chat()


def _row(setting: Setting, context: str, continuation: str) -> Row:
    """A question and its answer without the token that ends the turn."""
    answer = continuation.strip() or continuation
    row = setting.row(Example.of_pair(context.strip() or " ", answer, ""))
    if row is None:
        raise UsageError(
            f"an answer of a task is longer than {setting.max_length} tokens",
            hint="a larger `--max-length` holds it",
        )
    return replace(row, tokens=row.tokens[:-1])


def _windows(setting: Setting, text: str) -> list[Row]:
    """A text in pieces, every token of it predicted once from what stands before it in its piece.

    There is no assistant's turn in it; adapters act on all of it.
    """
    ends = min(setting.tokenizer.eos_ids)
    tokens = setting.tokenizer.encode(text)
    size = min(setting.max_length, setting.engine.config.context_length) - 1
    return [
        Row((ends if at == 0 else tokens[at - 1], *tokens[at : at + size]), 0, 1, "")
        for at in range(0, len(tokens), size)
    ]


def _likelihoods(
    setting: Setting, rows: Sequence[Row], adapters: Adapters, tick: Tick
) -> list[tuple[float, bool]]:
    """Per row: log-likelihood of the answer, and whether always taking the likeliest gives it."""
    found = [(0.0, True)] * len(rows)
    (reader,) = readers(setting.engine, rows, (adapters,)) if rows else (None,)
    for index in in_order(rows):
        row, total, greedy = rows[index], 0.0, True
        assert reader is not None
        for first, scores in reader.log_probs(row, adapters):
            answer = np.array(row.tokens[first : first + len(scores)])
            total += float(scores[np.arange(len(scores)), answer].sum())
            greedy = greedy and bool((scores.argmax(axis=-1) == answer).all())
        found[index] = (total, greedy)
        tick(1)
    return found


def _answer(setting: Setting, context: str, how: dict[str, Any], tick: Tick) -> str:
    """The likeliest answer, up to the first of the texts that end it."""
    row = setting.row(Example.of_pair(context.strip() or " ", "-", ""))
    assert row is not None
    most = int(how.get("max_gen_toks") or MAX_NEW_TOKENS)
    ((text,),) = answers(setting, [row], most, tick)
    until = how.get("until") or []
    for end in [until] if isinstance(until, str) else until:
        text = text.split(end)[0] if end else text
    return text
