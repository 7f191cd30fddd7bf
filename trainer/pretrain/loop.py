"""The pretraining loop: every weight is trained, and a killed run goes on to the same result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from specs.errors import DoesNotFitError, MbpmError, UsageError
from trainer import checkpoint
from trainer.checkpoint import LAST, Progress
from trainer.interrupt import held_back
from trainer.loop import StepReport, hash_seed
from trainer.memory import available, megabytes, out_of_memory, resident
from trainer.pretrain.config import Pretraining
from trainer.pretrain.corpus import Tokens, epoch_order
from trainer.pretrain.model import FloatModel
from trainer.schedule import rate

CHECKPOINT_SECONDS = 60.0
BETAS = (0.9, 0.95)

Reporter = Callable[[StepReport], None]


@dataclass(frozen=True)
class Windows:
    """Training sequences [n, window + 1] of text and of conversations."""

    texts: Tokens
    chats: Tokens

    def epoch(self, config: Pretraining, epoch: int) -> list[int]:
        """Their numbers in the order of an epoch, those of conversations behind those of texts."""
        seed = hash_seed(config.seed, epoch)
        return epoch_order(len(self.texts), len(self.chats), config.chat_share, seed)

    def batch(self, numbers: list[int], device: torch.device) -> torch.Tensor:
        """[B, window + 1] ids."""
        rows = [
            self.texts[n] if n < len(self.texts) else self.chats[n - len(self.texts)]
            for n in numbers
        ]
        return torch.from_numpy(np.stack(rows).astype(np.int64)).to(device)


def pretrain(
    model: FloatModel,
    data: Windows,
    config: Pretraining,
    run: str,
    checkpoints: Path,
    report: Reporter,
) -> int:
    """Train `model` in place, or go on where a stopped run stopped; returns the steps.

    Args:
        run: digest of everything that decides the result.

    Raises:
        MbpmError: the loss is not a number any more.
        UsageError: too little data, or `checkpoints` belongs to another run.
        DoesNotFitError: the disk is full, and the checkpoint before stays; or too little memory.
        KeyboardInterrupt: after the step and a checkpoint.
    """
    per_step = config.batch_tokens // config.window
    orders = [data.epoch(config, e) for e in range(config.epochs)]
    plan = [
        (epoch, order[at : at + per_step])
        for epoch, order in enumerate(orders)
        for at in range(0, len(order), per_step)
    ]
    if not plan:
        raise UsageError(
            f"the data gives no window of {config.window} tokens",
            hint="train on more text, or with a smaller `window`",
        )
    optimizer = _optimizer(model, config)
    progress = Progress(run)
    if raw := checkpoint.read(checkpoints / LAST):
        tensors, progress = checkpoint.parse(raw, run, checkpoints / LAST)
        _restore(model, optimizer, tensors, progress.step)
    bfloat16 = config.precision == "bfloat16"
    began = saved = time.monotonic()
    first, tokens = progress.step, 0
    with held_back() as interrupted:
        for step, (epoch, numbers) in enumerate(plan[first:], start=first):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rate(config, step, len(plan))
            batch = data.batch(numbers, model.device)
            try:
                with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
                    loss = model.losses(batch).mean()
            except (MemoryError, RuntimeError) as error:
                raise _explained(error, model, config) from None
            if not torch.isfinite(loss):
                raise MbpmError(
                    f"the loss is not a number at step {step + 1}",
                    hint=f"a smaller `learning_rate` than {config.learning_rate:g} usually helps; "
                    "`--restart` begins anew",
                )
            optimizer.zero_grad()
            try:
                loss.backward()  # type: ignore[no-untyped-call]
                norm = torch.nn.utils.clip_grad_norm_(
                    model.weights.values(), config.max_gradient_norm
                )
                optimizer.step()
            except (MemoryError, RuntimeError) as error:
                raise _explained(error, model, config) from None
            progress.step = step + 1
            tokens += batch.numel() - len(batch)
            stop = interrupted()  # one that comes later ends the next step
            if stop or step + 1 == len(plan) or time.monotonic() - saved > CHECKPOINT_SECONDS:
                checkpoint.write(checkpoints / LAST, _state(model, optimizer), progress)
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
                    None,
                    optimizer.param_groups[0]["lr"],
                    float(norm),
                )
            )
            if stop:
                raise KeyboardInterrupt
    return len(plan)


def _explained(error: Exception, model: FloatModel, config: Pretraining) -> Exception:
    """What to raise for an error of a step: where memory was short, with what would fit."""
    if not out_of_memory(error):
        return error
    numbers = sum(weight.numel() for weight in model.weights.values())
    held = resident(model.device) + available(model.device)
    # weights, gradients and two moments beside what the backward pass wants of every token
    room = held - 16 * numbers
    tokens = min(room // _token_bytes(model), config.batch_tokens // 2)
    tokens -= tokens % config.window
    what = f"no memory left for a step of {config.batch_tokens} tokens"
    if tokens > 0:
        hint = f"`batch_tokens = {tokens}` in [training] would fit; `--restart` begins anew with it"
    else:
        hint = (
            f"one window of {config.window} tokens does not fit beside {megabytes(16 * numbers)} "
            "of weights, gradients and moments: a smaller `window` or [model] would"
        )
    return DoesNotFitError(what, hint=hint)


def _token_bytes(model: FloatModel) -> int:
    """Bytes that autograd keeps of a token, in float32: about everything that is computed."""
    c = model.config
    qkv = (c.heads + 2 * c.kv_heads) * c.head_dim
    return 4 * c.layers * (8 * c.hidden_size + 4 * qkv + 5 * c.ffn_size)


def _optimizer(model: FloatModel, config: Pretraining) -> torch.optim.AdamW:
    matrices = [w for w in model.weights.values() if w.ndim > 1]
    others = [w for w in model.weights.values() if w.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS)


def _state(model: FloatModel, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, weight in model.weights.items():
        state = optimizer.state[weight]
        tensors[name] = weight.detach().cpu()
        tensors[f"first.{name}"] = state["exp_avg"].cpu()
        tensors[f"second.{name}"] = state["exp_avg_sq"].cpu()
    return tensors


def _restore(
    model: FloatModel, optimizer: torch.optim.AdamW, tensors: dict[str, torch.Tensor], step: int
) -> None:
    for name, weight in model.weights.items():
        with torch.no_grad():
            weight.copy_(tensors[name])
        optimizer.state[weight] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"first.{name}"].to(weight.device),
            "exp_avg_sq": tensors[f"second.{name}"].to(weight.device),
        }
