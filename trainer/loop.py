"""The training loop."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.model import Delta, Model
from specs.base_card import BaseCard
from specs.errors import MbpmError
from specs.model import canonical_json
from trainer.batches import Row, batches, pad
from trainer.checkpoint import (
    BEST,
    LAST,
    Progress,
    load,
    optimizer_tensors,
    restore_optimizer,
    save,
)
from trainer.config import TrainingConfig
from trainer.forward import token_losses
from trainer.lora import TrainableAdapter

CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class StepReport:
    """What a progress bar shows after every step."""

    step: int
    steps: int
    epoch: int
    loss: float
    """Mean over the step's answer tokens, nats."""
    tokens_per_second: float
    """Real tokens (prompt and answer, no padding) since the run or its resumption began."""
    seconds_left: float
    held_out: float | None
    """Held-out loss, after the last step of an epoch."""


Reporter = Callable[[StepReport], None]


@dataclass(frozen=True)
class Result:
    """The best adapter of a run."""

    tensors: dict[str, torch.Tensor]
    held_out_loss: float
    """Nats per token."""
    steps: int


def run_digest(config: TrainingConfig, card: BaseCard, rows: Sequence[Row]) -> str:
    """Digest of everything that decides a run's result."""
    data = [[r.tokens, r.start, r.answer] for r in rows]
    document = [config.model_dump(mode="json"), card.fingerprint, data]
    return hashlib.sha256(canonical_json(document)).hexdigest()


@torch.no_grad()
def mean_loss(model: Model, delta: Delta | None, rows: Sequence[Row], batch_tokens: int) -> float:
    """Mean negative log-likelihood of all answer tokens, nats."""
    total, count = 0.0, 0
    for batch in batches(rows, batch_tokens, None):
        losses = token_losses(model, delta, pad(batch, model.device))
        total += float(losses.sum())
        count += losses.numel()
    return total / count


def train(
    model: Model,
    card: BaseCard,
    rows: Sequence[Row],
    held_out: Sequence[Row],
    config: TrainingConfig,
    checkpoints: Path,
    report: Reporter,
) -> Result:
    """Train an adapter, or go on where a killed run of the same settings stopped.

    The order of batches depends on the seed and the epoch alone, so a resumed run ends with the
    same tensors as one that was never stopped. The adapter with the lowest held-out loss is kept.

    Raises:
        MbpmError: the loss is not a number any more.
        UsageError: `checkpoints` belongs to another run.
    """
    run = run_digest(config, card, rows)
    adapter = TrainableAdapter(card, config.rank, config.alpha, config.seed, model.device)
    optimizer = torch.optim.AdamW(
        adapter.tensors.values(), lr=config.learning_rate, weight_decay=0.0
    )
    progress = Progress(run)
    if (found := load(checkpoints / LAST, run)) is not None:
        tensors, progress = found
        restore_optimizer(adapter, optimizer, tensors, progress.step)
    plan = [
        (epoch, batch)
        for epoch in range(config.epochs)
        for batch in batches(rows, config.batch_tokens, hash_seed(config.seed, epoch))
    ]
    warmup = max(1, round(config.warmup * len(plan)))
    began, saved, tokens = time.monotonic(), time.monotonic(), 0
    first = progress.step
    for step, (epoch, batch) in enumerate(plan[first:], start=first):
        rate = min((step + 1) / warmup, (len(plan) - step) / max(1, len(plan) - warmup))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * rate
        loss = token_losses(model, adapter, pad(batch, model.device)).mean()
        if not torch.isfinite(loss):
            raise MbpmError(
                f"the loss is not a number at step {step + 1}",
                hint=f"a smaller `--learning-rate` than {config.learning_rate:g} usually helps",
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(adapter.tensors.values(), config.max_gradient_norm)
        optimizer.step()
        progress.step = step + 1
        tokens += sum(len(r.tokens) for r in batch)
        epoch_ends = step + 1 == len(plan) or plan[step + 1][0] != epoch
        held_out_loss = None
        if epoch_ends:
            held_out_loss = mean_loss(model, adapter, held_out, config.batch_tokens)
            if progress.best_loss is None or held_out_loss < progress.best_loss:
                progress.best_loss = held_out_loss
                save(checkpoints / BEST, adapter.snapshot(), progress)
        if epoch_ends or time.monotonic() - saved > CHECKPOINT_SECONDS:
            save(checkpoints / LAST, optimizer_tensors(adapter, optimizer), progress)
            saved = time.monotonic()
        spent = time.monotonic() - began
        report(
            StepReport(
                step + 1,
                len(plan),
                epoch + 1,
                float(loss.detach()),
                tokens / spent,
                spent / (step + 1 - first) * (len(plan) - step - 1),
                held_out_loss,
            )
        )
    best = load(checkpoints / BEST, run)
    assert best is not None and progress.best_loss is not None
    return Result(best[0], progress.best_loss, len(plan))


def hash_seed(seed: int, epoch: int) -> int:
    """A seed for the order of one epoch."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{epoch}".encode()).digest()[:8], "big")
