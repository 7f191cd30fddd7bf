"""Preference pairs: the loss is the paper's, over the runtime's probabilities, and is learned."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from runtime.model import Model
from specs.errors import UsageError
from tests.support.tiny_base import make_tiny_base
from tests.trainer.test_forward import adapter as adapter  # fixtures
from tests.trainer.test_forward import base as base
from tests.trainer.test_forward import losses, rows
from tests.trainer.test_forward import model as model
from trainer.batches import Row
from trainer.config import TrainingConfig
from trainer.data.example import Example
from trainer.distributed import World
from trainer.loop import Resources
from trainer.lora import TrainableAdapter
from trainer.objective import Pair, Preference
from trainer.prompts import Prompts
from trainer.steps import Steps
from trainer.training import PREFERENCE_RATE, Means, default_rate, prefers, prepare
from trainer.workers import Workers

CPU = torch.device("cpu")


def pairs(count: int) -> list[Pair]:
    """Two rows with one prompt and different answers each."""
    rng = random.Random(3)
    made = []
    for row in rows(count):
        answer = (rng.randrange(3, 250) for _ in range(rng.randint(1, 20)))
        other = Row((*row.tokens[: row.answer], *answer), row.start, row.answer, row.group)
        made.append(Pair(row, other))
    return made


def test_the_loss_and_its_gradient_are_those_of_the_formula(
    base: Path, model: Model, adapter: TrainableAdapter
) -> None:
    given = [Pair(p.chosen, p.rejected, 0.3 * i) for i, p in enumerate(pairs(6))]
    with Workers(2) as workers:
        prompts = Prompts(model, [r for p in given for r in p.rows], torch.float32)
        steps = Steps(model, adapter, prompts, workers, World())
        loss = steps.gradients(Preference(0.5), [given[:3], given[3:]], len(given))
    found = torch.cat([flat.grad for flat in adapter.flat.values() if flat.grad is not None])

    def log_probability(row: Row) -> torch.Tensor:
        return -losses(model, adapter, [row]).sum()

    expected = torch.stack(
        [
            -F.logsigmoid(
                0.5 * (log_probability(p.chosen) - log_probability(p.rejected) - p.reference)
            )
            for p in given
        ]
    ).mean()
    gradients = torch.autograd.grad(expected, list(adapter.tensors.values()))
    assert loss == pytest.approx(expected.item(), abs=1e-4)
    torch.testing.assert_close(
        found, torch.cat([g.reshape(-1) for g in gradients]), atol=1e-4, rtol=1e-3
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("bases"))


def example(number: int, *, rejected: str = "no, it is not") -> Example:
    return Example.of_pair(f"is {number} so?", f"yes, {number}", str(number), rejected=rejected)


def test_preferences_are_learned_from_where_the_base_stands(folder: Path, tmp_path: Path) -> None:
    examples = [example(i) for i in range(60)]
    config = TrainingConfig(rank=4, epochs=2, learning_rate=0.003, batch_tokens=600)
    means = Means("cpu", Resources(cores=2))
    material = prepare(folder, examples[:48], examples[48:], config, means)
    first = material.training[0]
    assert isinstance(first, Pair)
    better, worse = first.rows
    assert better.tokens[: better.answer] == worse.tokens[: worse.answer]
    result = material.fit(config, tmp_path, lambda step: None, means.resources, World())
    assert result.losses[0] == pytest.approx(0.6931, abs=0.02), "the base prefers nothing to itself"
    assert result.held_out_loss < 0.3


def test_pairs_and_answers_are_not_mixed_unless_asked() -> None:
    both = [example(1), example(2, rejected="")]
    with pytest.raises(UsageError, match="1 of 2 examples are preference pairs") as caught:
        prefers(both, TrainingConfig())
    assert "--objective answers" in (caught.value.hint or "")
    assert not prefers(both, TrainingConfig(objective="answers"))
    assert prefers(both[:1], TrainingConfig())
    assert default_rate(both[:1], TrainingConfig()) == {"learning_rate": PREFERENCE_RATE}
    with pytest.raises(UsageError, match="no row has a worse answer"):
        prefers(both[1:], TrainingConfig(objective="preference"))
