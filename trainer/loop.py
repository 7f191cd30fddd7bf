"""The training loop."""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

import torch

from runtime.model import Model
from specs.base_card import BaseCard
from specs.errors import DoesNotFitError, MbpmError
from specs.model import canonical_json
from trainer import checkpoint
from trainer.batches import Items, Row, batches, parts
from trainer.checkpoint import BEST, LAST, Progress
from trainer.config import TrainingConfig
from trainer.distributed import World
from trainer.interrupt import held_back
from trainer.lora import TrainableAdapter
from trainer.memory import (
    Plan,
    Sizes,
    available,
    megabytes,
    option,
    out_of_memory,
    plan,
    resident,
)
from trainer.objective import Answers, Objective
from trainer.prompts import Prompts
from trainer.schedule import rate
from trainer.sizing import sizes_of
from trainer.steps import Steps
from trainer.workers import Workers, cores_for

CHECKPOINT_SECONDS = 60.0
VERSION = 2
"""Of what a run computes: another one does not resume its checkpoints."""


@dataclass(frozen=True)
class StepReport:
    """What a progress bar shows after every step."""

    step: int
    steps: int
    epoch: int
    loss: float
    """Of the step: nats per answer token, or the objective's own."""
    tokens_per_second: float
    """Real tokens (prompt and answer) since the run or its resumption began."""
    seconds_left: float
    held_out: float | None
    """Held-out loss, after a look at it."""
    learning_rate: float = 0.0
    gradient_norm: float = 0.0


class NotANumberError(MbpmError):
    """The loss is not a number any more."""


Reporter = Callable[[StepReport], None]


@dataclass(frozen=True)
class Resources:
    """What a run may use of the machine."""

    cores: int = field(default_factory=torch.get_num_threads)
    memory: int | None = None
    """Bytes of the whole process; by default what it has and most of what is free."""
    disk: int | None = None
    """Bytes of a file for keys and values of prompts; by default half of what is free."""


@dataclass(frozen=True)
class Result:
    """The best adapter of a run."""

    tensors: dict[str, torch.Tensor]
    held_out_loss: float
    """Nats per token, or the objective's own."""
    steps: int
    """Steps that were made; fewer than planned where the held-out loss stopped falling."""
    plan: Plan
    losses: tuple[float, ...]
    """Of every step."""
    looks: tuple[tuple[int, float], ...]
    """Step and held-out loss of every look."""


def run_digest(
    config: TrainingConfig, card: BaseCard, items: Sequence[Items], held_out: Sequence[Items]
) -> str:
    """Digest of everything that decides a run's result."""
    data = [
        [[r.tokens, r.start, r.answer] for item in part for r in item.rows]
        for part in (items, held_out)
    ]
    document = [VERSION, config.model_dump(mode="json"), card.fingerprint, data]
    return hashlib.sha256(canonical_json(document)).hexdigest()


def train(
    model: Model,
    card: BaseCard,
    rows: Sequence[Row],
    held_out: Sequence[Row],
    config: TrainingConfig,
    checkpoints: Path,
    report: Reporter,
    *,
    resources: Resources | None = None,
    world: World | None = None,
) -> Result:
    """Train an adapter on answers; `fit` with the objective `Answers`."""
    return fit(
        model, card, rows, held_out, config, checkpoints, report,
        objective=Answers(), resources=resources, world=world,
    )  # fmt: skip


def fit(
    model: Model,
    card: BaseCard,
    items: Sequence[Items],
    held_out: Sequence[Items],
    config: TrainingConfig,
    checkpoints: Path,
    report: Reporter,
    *,
    objective: Objective[Items],
    resources: Resources | None = None,
    world: World | None = None,
) -> Result:
    """Train an adapter, or go on where a stopped run of the same settings was.

    The order of batches depends on the seed and the epoch alone, and how a step is computed stands
    in the checkpoint, so a resumed run ends with the same tensors as one that was never stopped.
    The adapter with the lowest held-out loss is kept.

    Raises:
        NotANumberError: the loss is none any more.
        UsageError: `checkpoints` belongs to another run.
        DoesNotFitError: too little memory, or disk for a checkpoint.
        KeyboardInterrupt: the run was asked to stop; a checkpoint stands.
    """
    run = _Fit(
        model, card, items, held_out, config, checkpoints, report, objective,
        resources or Resources(), world or World(),
    )  # fmt: skip
    return run.result()


class _Fit(Generic[Items]):
    """One run."""

    def __init__(
        self,
        model: Model,
        card: BaseCard,
        items: Sequence[Items],
        held_out: Sequence[Items],
        config: TrainingConfig,
        checkpoints: Path,
        report: Reporter,
        objective: Objective[Items],
        resources: Resources,
        world: World,
    ) -> None:
        self.model, self.items, self.held_out, self.config = model, items, held_out, config
        self.folder, self.report, self.objective = checkpoints, report, objective
        self.resources, self.world = resources, world
        self.run = run_digest(config, card, items, held_out)
        self.adapter = TrainableAdapter(
            card, config.rank, config.scale, config.seed, model.device, config.projections,
            config.init,
        )  # fmt: skip
        a, b = self.adapter.flat.values()
        self.ratios = (1.0, config.lora_plus)
        self.optimizer = torch.optim.AdamW(
            [{"params": [a]}, {"params": [b]}],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.progress = Progress(self.run)
        if raw := self._share(LAST):
            tensors, self.progress = checkpoint.parse(raw, self.run, checkpoints / LAST)
            checkpoint.restore_optimizer(self.adapter, self.optimizer, tensors, self.progress.step)
        self.epochs = [
            batches(items, config.batch_tokens, hash_seed(config.seed, epoch))
            for epoch in range(config.epochs)
        ]
        self.steps = sum(map(len, self.epochs))

    def result(self) -> Result:
        """Run to the end."""
        cores = cores_for(self.model.device, self.resources.cores)
        with Workers(cores) as workers, held_back() as interrupted:
            torch.set_num_threads(1)
            made = self._plan(workers)
            try:
                self._run(workers, made, interrupted)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                raise self._too_much(made, workers) from None
        raw = self._share(BEST)
        assert raw and self.progress.best_loss is not None
        best, _ = checkpoint.parse(raw, self.run, self.folder / BEST)
        return Result(
            best, self.progress.best_loss, self.progress.step, made,
            tuple(self.progress.losses), tuple(self.progress.looks),
        )  # fmt: skip

    def _share(self, name: str) -> bytes:
        """A checkpoint as the main process sees it."""
        return self.world.share(checkpoint.read(self.folder / name) if self.world.main else b"")

    def _run(self, workers: Workers, made: Plan, interrupted: Callable[[], bool]) -> None:
        p, config = self.progress, self.config
        everything = [*self.items, *self.held_out]
        self.folder.mkdir(parents=True, exist_ok=True)
        prompts = Prompts(
            self.model,
            [row for item in everything for row in item.rows],
            self._dtype,
            kept=made.kept,
            spilled=made.spilled,
            folder=self.folder,
        )
        steps = Steps(
            self.model, self.adapter, prompts, workers, self.world, recompute=made.recompute
        )
        if p.step < self.steps and not self._stopped():
            prompts.fill(lambda read, numbers: workers.map(read, numbers, lambda: None))
        began = saved = time.monotonic()
        tokens, first = 0, p.step
        for epoch, batch, look in self._plan_of_steps()[first:]:
            if self._stopped():
                break
            step = p.step
            share = rate(config, step, self.steps)
            for group, ratio in zip(self.optimizer.param_groups, self.ratios, strict=True):
                group["lr"] = config.learning_rate * share * ratio
            weight = self.objective.weight(batch)
            loss = steps.gradients(self.objective, parts(batch, made.parts), weight)
            norm = torch.nn.utils.clip_grad_norm_(
                self.adapter.flat.values(), config.max_gradient_norm
            )
            if not torch.isfinite(norm) or loss != loss:
                raise self._not_a_number("the loss", step + 1)
            self.optimizer.step()
            p.step += 1
            p.losses.append(loss)
            tokens += sum(item.size for item in batch)
            held_out = self._look(steps, made.parts) if look else None
            asked = self.world.any(interrupted())
            if asked or look or time.monotonic() - saved > CHECKPOINT_SECONDS:
                self._save(LAST, checkpoint.optimizer_tensors(self.adapter, self.optimizer))
                saved = time.monotonic()
            spent = time.monotonic() - began
            self.report(
                StepReport(
                    p.step,
                    self.steps,
                    epoch + 1,
                    loss,
                    tokens / spent,
                    spent / (p.step - first) * (self.steps - p.step),
                    held_out,
                    config.learning_rate * share,
                    float(norm),
                )
            )
            if asked:
                raise KeyboardInterrupt

    def _plan_of_steps(self) -> list[tuple[int, list[Items], bool]]:
        """Epoch, batch, and whether the held-out rows are looked at after it, of every step."""
        made = []
        for epoch, steps in enumerate(self.epochs):
            looks = min(self.config.looks, len(steps))
            ends = {-(-len(steps) * k // looks) for k in range(1, looks + 1)}
            made += [(epoch, batch, at in ends) for at, batch in enumerate(steps, start=1)]
        return made

    def _stopped(self) -> bool:
        return 0 < self.config.patience <= self.progress.stale

    def _look(self, steps: Steps, count: int) -> float:
        """The held-out loss; the best adapter so far is kept."""
        p = self.progress
        pieces = [
            part
            for batch in batches(self.held_out, self.config.batch_tokens, None)
            for part in parts(batch, count)
        ]
        total = sum(steps.totals(self.objective, pieces))
        loss = total / self.objective.weight(self.held_out)
        if not math.isfinite(loss):
            raise self._not_a_number("the held-out loss", p.step)
        p.looks.append((p.step, loss))
        p.stale += 1
        if p.best_loss is None or loss < p.best_loss:
            p.best_loss, p.best_step, p.stale = loss, p.step, 0
            self._save(BEST, self.adapter.values())
        return loss

    def _not_a_number(self, what: str, step: int) -> NotANumberError:
        return NotANumberError(
            f"{what} is not a number at step {step}",
            hint=f"a smaller `--learning-rate` than {self.config.learning_rate:g} usually helps",
        )

    def _save(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        if self.world.main:
            checkpoint.write(self.folder / name, tensors, self.progress)

    @property
    def _dtype(self) -> torch.dtype:
        return self.model.head.dtype  # type: ignore[union-attr]

    def _plan(self, workers: Workers) -> Plan:
        """How steps are computed: as before where the run is resumed."""
        made = self.progress.adopted()
        if made is None:
            made = plan(self._sizes(workers), *self._limits(), self.config.epochs)
            chosen = [made.parts, int(made.recompute), made.kept, made.spilled, made.peak]
            text = " ".join(map(str, chosen)).encode()
            numbers = [int(n) for n in self.world.share(text).split()]
            made = Plan(numbers[0], bool(numbers[1]), *numbers[2:])
            self.progress.adopt(made)
        elif self.resources.memory is not None and made.peak > self.resources.memory:
            raise DoesNotFitError(
                f"the run that would go on was planned with {megabytes(made.peak)} of memory, and "
                f"{megabytes(self.resources.memory)} may be used",
                hint=f"{option(made.peak)} goes on; `--restart` begins anew with less",
            )
        return made

    def _limits(self) -> tuple[int, int]:
        memory = self.resources.memory or self._free()
        disk = self.resources.disk
        if disk is None:
            folder = next(p for p in (self.folder, *self.folder.parents) if p.exists())
            disk = shutil.disk_usage(folder).free // (2 * self.world.size)
        return memory, disk

    def _free(self) -> int:
        device = self.model.device
        return resident(device) + available(device) // self.world.size

    def _sizes(self, workers: Workers) -> Sizes:
        return sizes_of(
            self.model, self.adapter, self.items, self.held_out, self.config,
            workers=workers.count, processes=self.world.size,
        )  # fmt: skip

    def _too_much(self, made: Plan, workers: Workers) -> DoesNotFitError:
        """The system gave less than was planned with."""
        sizes = self._sizes(workers)
        needed = megabytes(made.peak)
        smaller = made.peak * 3 // 4
        try:
            less = plan(sizes, smaller, 0, 1)
            again = " with `--restart`" if self.progress.step else ""
            hint = f"{option(less.peak)}{again} computes the same in less"
        except DoesNotFitError as error:
            hint = error.hint or ""
        return DoesNotFitError(
            f"the system has no memory left for training, which was planned with {needed}",
            hint=hint,
        )


def hash_seed(seed: int, epoch: int) -> int:
    """A seed for the order of one epoch."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{epoch}".encode()).digest()[:8], "big")
