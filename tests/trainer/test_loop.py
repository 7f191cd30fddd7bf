"""Training learns, stops, resumes to the same result, and refuses what is not its own."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from runtime.model import Model
from specs.base_card import WEIGHTS_FILE, BaseCard
from specs.errors import IntegrityError, MbpmError, UsageError
from tests.support.tiny_base import write_tiny_base
from trainer.batches import Row
from trainer.config import TrainingConfig
from trainer.distributed import World
from trainer.frozen import load_frozen
from trainer.loop import Result, StepReport, train
from trainer.objective import Answers
from trainer.prompts import Prompts
from trainer.steps import Steps
from trainer.workers import Workers

CPU = torch.device("cpu")
CONFIG = TrainingConfig(rank=4, epochs=3, learning_rate=0.01, batch_tokens=400, max_length=64)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, BaseCard]:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    card = write_tiny_base(folder)
    return load_frozen(folder / WEIGHTS_FILE, CPU, torch.float32), card


def rows(count: int, seed: int) -> list[Row]:
    """Answers that repeat the last prompt token: something to learn."""
    rng = random.Random(seed)
    made = []
    for i in range(count):
        prompt = [rng.randrange(10, 40) for _ in range(rng.randint(4, 12))]
        tokens = (*prompt, 1, *([prompt[-1]] * rng.randint(2, 5)), 2)
        made.append(Row(tokens, len(prompt), len(prompt) + 1, str(i)))
    return made


def base_loss(model: Model, given: list[Row]) -> float:
    with Workers(1) as workers:
        steps = Steps(model, None, Prompts(model, given, torch.float32), workers, World())
        (total,) = steps.totals(Answers(), [given])
    return total / Answers().weight(given)


class StopError(Exception):
    """The power went."""


def run(
    base: tuple[Model, BaseCard], folder: Path, *, stop_at: int | None = None, **changes: object
) -> tuple[Result, list[StepReport]]:
    reports: list[StepReport] = []

    def report(step: StepReport) -> None:
        reports.append(step)
        if step.step == stop_at:
            raise StopError

    config = CONFIG.model_copy(update=changes)
    result = train(base[0], base[1], rows(150, 0), rows(40, 1), config, folder, report)
    return result, reports


def test_training_lowers_the_held_out_loss_and_resumes_to_the_same_bytes(
    base: tuple[Model, BaseCard], tmp_path: Path
) -> None:
    result, reports = run(base, tmp_path / "whole")
    assert result.held_out_loss < 0.7 * base_loss(base[0], rows(40, 1))
    per_epoch = [r.held_out for r in reports if r.held_out is not None]
    assert len(per_epoch) == CONFIG.epochs
    assert result.held_out_loss == min(per_epoch)

    steps_of_first_epoch = sum(r.epoch == 1 for r in reports)
    with pytest.raises(StopError):
        run(base, tmp_path / "cut", stop_at=steps_of_first_epoch + 2)
    resumed, rest = run(base, tmp_path / "cut")
    assert rest[0].step == steps_of_first_epoch + 1
    assert resumed.held_out_loss == result.held_out_loss
    for name, tensor in result.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name

    again, none = run(base, tmp_path / "cut")
    assert none == []
    assert again.held_out_loss == result.held_out_loss


def test_checkpoints_of_another_run_are_refused(
    base: tuple[Model, BaseCard], tmp_path: Path
) -> None:
    run(base, tmp_path, epochs=1)
    with pytest.raises(UsageError, match="other data, base or settings") as caught:
        run(base, tmp_path, epochs=1, rank=2)
    assert caught.value.hint is not None and "--restart" in caught.value.hint


def test_other_held_out_rows_are_another_run(base: tuple[Model, BaseCard], tmp_path: Path) -> None:
    given = rows(20, 0), rows(5, 1)
    config = CONFIG.model_copy(update={"epochs": 1})
    train(*base, *given, config, tmp_path, lambda step: None)
    with pytest.raises(UsageError, match="other data, base or settings"):
        train(*base, given[0], rows(5, 2), config, tmp_path, lambda step: None)


def test_a_damaged_checkpoint_is_named(base: tuple[Model, BaseCard], tmp_path: Path) -> None:
    run(base, tmp_path, epochs=1)
    file = tmp_path / "last.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(IntegrityError, match=r"last\.safetensors"):
        run(base, tmp_path, epochs=1)


def test_a_loss_that_is_not_a_number_stops_the_run(
    base: tuple[Model, BaseCard], tmp_path: Path
) -> None:
    with pytest.raises(MbpmError, match="not a number") as caught:
        run(base, tmp_path, learning_rate=1e30)
    assert caught.value.hint is not None and "--learning-rate" in caught.value.hint
