"""One batch through the quantised base with an adapter: prompt once without gradient, then the
part the adapter acts on."""

from __future__ import annotations

from typing import Any

import torch

from runtime.model import Delta, Model
from runtime.quant import DequantLinear
from trainer.batches import Padded


class _Keys:
    """Keys and values of the tokens before, and of those now run; a `runtime.model.KVStore`."""

    def __init__(self, before: _Keys | None = None) -> None:
        self.length = 0
        self.before = before
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def append(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Join [B, K, T, d] to what stands before, which may belong to one sequence or to B."""
        if self.before is not None:
            earlier = self.before.layers[layer]
            k, v = (
                torch.cat([old.expand(len(new), -1, -1, -1), new], dim=2)
                for old, new in zip(earlier, (k, v), strict=True)
            )
        self.layers.append((k, v))
        return k, v


def token_losses(model: Model, delta: Delta | None, batch: Padded) -> torch.Tensor:
    """Negative log-likelihood in nats of every counted token, in row order: [counted]."""
    keys: _Keys | None = None
    with torch.no_grad():
        if batch.shared.shape[1]:
            keys = _Keys()
            model.forward(batch.shared, keys)
        if batch.prompt.shape[1]:
            begin = batch.shared.shape[1]
            positions = begin + torch.arange(batch.prompt.shape[1], device=model.device)
            keys = _Keys(keys)
            model.forward(batch.prompt, keys, positions=positions, mask=batch.prompt_mask)
    hidden, _ = model.forward(
        batch.part, _Keys(keys), delta, positions=batch.positions, mask=batch.mask
    )
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
