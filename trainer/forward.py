"""One batch through the quantised base with an adapter: prompt once without gradient, then the
part the adapter acts on."""

from __future__ import annotations

from typing import Any

import torch

from runtime.model import Delta, Model
from runtime.quant import DequantLinear
from trainer.batches import Padded


class _PromptKeys:
    """Keys and values of the prompts, computed by the base alone; a `runtime.model.KVStore`."""

    def __init__(self) -> None:
        self.length = 0
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def append(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.layers.append((k, v))
        return k, v


class _BehindPrompt:
    """The adapted part sees the prompt's keys before its own; a `runtime.model.KVStore`."""

    def __init__(self, prompt: _PromptKeys) -> None:
        self.length, self.prompt = prompt.length, prompt

    def append(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        before_k, before_v = self.prompt.layers[layer]
        return torch.cat([before_k, k], dim=2), torch.cat([before_v, v], dim=2)


def token_losses(model: Model, delta: Delta | None, batch: Padded) -> torch.Tensor:
    """Negative log-likelihood in nats of every counted token, in row order: [counted]."""
    store: _BehindPrompt | None = None
    if batch.prompt.shape[1]:
        prompt = _PromptKeys()
        with torch.no_grad():
            model.forward(batch.prompt, prompt)
        store = _BehindPrompt(prompt)
    hidden, _ = model.forward(batch.part, store, delta, positions=batch.positions, mask=batch.mask)
    head = model.head
    assert isinstance(head, DequantLinear)
    losses: torch.Tensor = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden[batch.predict], head, batch.targets[batch.predict]
    )
    return losses


class _HeadLoss(torch.autograd.Function):
    """Cross-entropy through the frozen head, in pieces of rows.

    The head never changes, so the gradient of each row's loss is known while its logits are at
    hand: the head is dequantised once, and [rows, vocabulary] is never kept.
    """

    ROWS = 128

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: DequantLinear, targets: torch.Tensor
    ) -> torch.Tensor:
        weight = head.weight()
        wants_gradient = ctx.needs_input_grad[0]
        losses, gradients = [], []
        for at in range(0, len(hidden), _HeadLoss.ROWS):
            rows = hidden[at : at + _HeadLoss.ROWS].to(head.dtype)
            target = targets[at : at + _HeadLoss.ROWS, None]
            logits = (rows @ weight.T).float()
            normaliser = logits.logsumexp(dim=-1, keepdim=True)
            losses.append((normaliser - logits.gather(1, target))[:, 0])
            if wants_gradient:
                slope = logits.sub_(normaliser).exp_()
                slope.scatter_add_(1, target, torch.full_like(normaliser, -1.0))
                gradients.append((slope.to(head.dtype) @ weight).to(hidden.dtype))
        if wants_gradient:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return grads[0][:, None] * gradient, None, None
