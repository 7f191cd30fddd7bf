"""From examples to a trained adapter: the base loaded for training, rows, objective, the run."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Protocol

import torch

from runtime.chat_format import ChatFormat
from runtime.model import Model
from runtime.quant import DequantLinear
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import pick_device
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard
from specs.errors import UsageError
from trainer import search as finder
from trainer.batches import Items, Row, batches, encode, encode_all
from trainer.board import Board
from trainer.config import TrainingConfig
from trainer.curve import draw_losses
from trainer.data.example import Example, Message
from trainer.device import compute_type
from trainer.distributed import World
from trainer.frozen import load_frozen
from trainer.loop import NotANumberError, Resources, Result, StepReport, fit
from trainer.memory import SMALLEST_PART, hold_no_more
from trainer.objective import Answers, Objective, Pair, Preference
from trainer.prompts import Prompts
from trainer.steps import Steps
from trainer.workers import Workers, cores_for

WATCHED = 256
"""Held-out rows whose loss picks the best step; all of them are evaluated at the end."""
CURVE_FILE = "loss.png"
PREFERENCE_RATE = 1e-4
"""The learning rate for preference pairs unless another is asked for: answers that are likely
already are moved apart, which takes a tenth of the steps' length."""


class Listener(Protocol):
    """Who is told how a run goes on."""

    def stage(self, text: str) -> None:
        """A part of the work begins."""

    def step(self, report: StepReport) -> None:
        """A training step is done."""


@dataclass(frozen=True)
class Means:
    """With what a run is made; none of it decides its result but the last bits."""

    device: str = "auto"
    resources: Resources = field(default_factory=Resources)
    tensorboard: Path | None = None
    """Folder for TensorBoard event files."""

    @classmethod
    def of(
        cls, device: str, *, memory: int | None, cores: int | None, tensorboard: Path | None
    ) -> Means:
        """As a command line says; None leaves what is usual."""
        resources = Resources(memory=memory)
        if cores is not None:
            resources = replace(resources, cores=cores)
        return cls(device, resources, tensorboard)


@dataclass(frozen=True)
class Material(Generic[Items]):
    """A base and data, ready to train on."""

    model: Model
    card: BaseCard
    training: Sequence[Items]
    watched: Sequence[Items]
    objective: Objective[Items]

    def fit(
        self,
        config: TrainingConfig,
        checkpoints: Path,
        report: Callable[[StepReport], None],
        resources: Resources,
        world: World,
    ) -> Result:
        """`trainer.loop.fit` on it."""
        return fit(
            self.model, self.card, self.training, self.watched, config, checkpoints, report,
            objective=self.objective, resources=resources, world=world,
        )  # fmt: skip

    def search(
        self,
        config: TrainingConfig,
        fixed: Collection[str],
        output: Path,
        listener: Listener,
        resources: Resources,
    ) -> TrainingConfig:
        """`trainer.search.search` on a part of it; what was tried is told."""
        rows = finder.part_of(self.training, config.batch_tokens * finder.STEPS, config.seed)
        watched = finder.part_of(self.watched, config.batch_tokens * 4, config.seed)
        watched = watched[: finder.HELD_OUT]

        def attempt(changed: TrainingConfig) -> float | None:
            short = changed.model_copy(update={"epochs": 1, "looks": 1, "patience": 0})
            with finder.scratch(output) as folder:
                part = replace(self, training=rows, watched=watched)
                try:
                    made = part.fit(short, Path(folder), lambda _: None, resources, World.alone())
                except NotANumberError:
                    return None
            loss = made.held_out_loss
            listener.stage(
                f"tried learning rate {changed.learning_rate:g}, rank {changed.rank}: held-out "
                f"loss {loss:.4f} after {made.steps} steps"
            )
            return loss

        pairs = isinstance(self.objective, Preference)
        rates = finder.PREFERENCE_RATES if pairs else finder.RATES
        chosen, _ = finder.search(config, rates, fixed, attempt)
        listener.stage(
            f"chosen: learning rate {chosen.learning_rate:g}, rank {chosen.rank}, "
            f"alpha {chosen.alpha:g}"
        )
        return chosen


def prefers(examples: Sequence[Example], config: TrainingConfig) -> bool:
    """Whether a run learns preferences: where every example is a pair, or where it is asked to.

    Raises:
        UsageError: some examples are pairs and some are not.
    """
    pairs = sum(bool(e.rejected) for e in examples)
    if config.objective == "answers" or not pairs:
        if config.objective == "preference":
            raise UsageError(
                "`--objective preference` was asked for, and no row has a worse answer",
                hint="a pair is a row with `prompt`, `chosen` and `rejected`",
            )
        return False
    if pairs < len(examples):
        raise UsageError(
            f"{pairs} of {len(examples)} examples are preference pairs, expected all or none",
            hint="`--objective answers` learns the better answers of the pairs, and the others",
        )
    return True


def default_rate(examples: Sequence[Example], config: TrainingConfig) -> dict[str, float]:
    """What to change of a configuration whose learning rate nobody chose."""
    return {"learning_rate": PREFERENCE_RATE} if prefers(examples, config) else {}


def prepare(
    base_dir: Path,
    training: Sequence[Example],
    held_out: Sequence[Example],
    config: TrainingConfig,
    means: Means,
) -> Material[Row] | Material[Pair]:
    """Load the base for training and encode the data.

    Raises:
        UsageError: unusable data.
    """
    weights = base_dir / WEIGHTS_FILE
    card = BaseCard.parse((base_dir / CARD_FILE).read_bytes(), str(base_dir / CARD_FILE))
    chat = ChatFormat.from_gguf(weights, Tokenizer.from_gguf(weights))
    device = pick_device(means.device)
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if device.type == "cuda" and means.resources.memory is not None:
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, means.resources.memory / whole), device)
    model = load_frozen(weights, device, compute_type(device))
    hold_no_more()
    draw = random.Random(config.seed)
    if not prefers([*training, *held_out], config):
        rows, watched = (
            encode_all(e, chat, config.activation, config.max_length) for e in (training, held_out)
        )
        watched = draw.sample(watched, min(len(watched), WATCHED))
        return Material(model, card, rows, watched, Answers())
    pairs, others = (_pairs(e, chat, config) for e in (training, held_out))
    others = draw.sample(others, min(len(others), WATCHED))
    referred = _with_references(model, [*pairs, *others], config, means)
    return Material(
        model, card, referred[: len(pairs)], referred[len(pairs) :], Preference(config.beta)
    )


def _pairs(examples: Sequence[Example], chat: ChatFormat, config: TrainingConfig) -> list[Pair]:
    made = []
    for example in examples:
        worse = replace(
            example, messages=(*example.messages[:-1], Message("assistant", example.rejected))
        )
        rows = [encode(e, chat, config.activation, config.max_length) for e in (example, worse)]
        if rows[0] is not None and rows[1] is not None:
            made.append(Pair(rows[0], rows[1]))
    if not made:
        raise UsageError(
            f"every pair has an answer longer than {config.max_length} tokens",
            hint="raise `--max-length`, or give shorter answers",
        )
    return made


def _with_references(
    model: Model, pairs: Sequence[Pair], config: TrainingConfig, means: Means
) -> list[Pair]:
    """Pairs with what the base alone holds of them."""
    assert isinstance(model.head, DequantLinear)
    prompts = Prompts(model, [row for p in pairs for row in p.rows], model.head.dtype)
    with Workers(cores_for(model.device, means.resources.cores)) as workers:
        steps = Steps(model, None, prompts, workers, World.alone())
        # few at a time: a plan that keeps training small says nothing about this
        losses = steps.row_losses(batches(pairs, SMALLEST_PART, None))
    sums = [loss for part in losses for loss in part]
    return [replace(pair, reference=sums[2 * i + 1] - sums[2 * i]) for i, pair in enumerate(pairs)]


def train_adapter(
    base_dir: Path,
    training: Sequence[Example],
    held_out: Sequence[Example],
    config: TrainingConfig,
    output: Path,
    listener: Listener,
    means: Means,
) -> tuple[Result, int]:
    """Train; checkpoints stand in `output/checkpoints`, the loss curve in `output/loss.png`.

    Where `torchrun` started several processes, only the main one returns.

    Returns:
        The result, and how many held-out rows chose the best step.

    Raises:
        As `trainer.loop.fit`.
        SystemExit: this is not the main process, and its part is done.
    """
    world = World()
    listener.stage("loading the base")
    material = prepare(base_dir, training, held_out, config, means)
    if left := len(training) - len(material.training):
        listener.stage(
            f"{left:,} of {len(training):,} examples left out: their answers alone are longer than "
            f"{config.max_length} tokens (`--max-length`)"
        )
    board = Board(means.tensorboard) if means.tensorboard is not None and world.main else None

    def report(step: StepReport) -> None:
        listener.step(step)
        if board is not None:
            board.step(step)

    listener.stage("training")
    try:
        result = material.fit(config, output / "checkpoints", report, means.resources, world)
    finally:
        if board is not None:
            board.close()
    world.finish()
    if not world.main:
        raise SystemExit(0)
    title = f"{material.card.name}, rank {config.rank}, {config.activation}"
    draw_losses(output / CURVE_FILE, result.losses, result.looks, title)
    return result, len(material.watched)


def search(
    base_dir: Path,
    training: Sequence[Example],
    held_out: Sequence[Example],
    config: TrainingConfig,
    fixed: Collection[str],
    output: Path,
    listener: Listener,
    means: Means,
) -> TrainingConfig:
    """`config` with the learning rate and rank that short runs on a part of the data find.

    Args:
        fixed: `learning_rate` or `rank`, where a person chose them.
    """
    listener.stage("loading the base")
    material = prepare(base_dir, training, held_out, config, means)
    return material.search(config, fixed, output, listener, means.resources)
