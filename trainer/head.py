"""Cross-entropy through the frozen head, in pieces of rows.

The head never changes, so the gradient of each row's loss is known while its logits are at hand:
the head is dequantised once, and [rows, vocabulary] is never kept.
"""

from __future__ import annotations

from typing import Any

import torch

from trainer.frozen import HEAD, Matrices

ROWS = 128
"""Rows whose logits stand in memory at once, in the matrices' type."""
EXACT_ROWS = 16
"""Rows whose logits are float32 at once."""
_KEY = ("head", 0, HEAD)


class HeadLoss(torch.autograd.Function):
    """Negative log-likelihood in nats of `targets` [M], given normed hidden states [M, D]."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, matrices: Matrices, targets: torch.Tensor
    ) -> torch.Tensor:
        weight = matrices.take(_KEY).weight
        wants_gradient = ctx.needs_input_grad[0]
        losses = torch.empty(len(hidden), device=hidden.device)
        gradient = torch.empty_like(hidden, dtype=weight.dtype) if wants_gradient else None
        for at in range(0, len(hidden), ROWS):
            rows = slice(at, at + ROWS)
            logits = hidden[rows].to(weight.dtype) @ weight.T
            losses[rows] = _losses(logits, targets[rows], wants_gradient)
            if gradient is not None:
                gradient[rows] = logits @ weight
        matrices.release(_KEY)
        ctx.gradient = gradient
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0][:, None] * ctx.gradient, None, None


def _losses(logits: torch.Tensor, targets: torch.Tensor, wants_slopes: bool) -> torch.Tensor:
    """float32 losses of [n, vocabulary] logits, which become the losses' slopes where wanted."""
    losses = []
    for at in range(0, len(logits), EXACT_ROWS):
        part, target = logits[at : at + EXACT_ROWS], targets[at : at + EXACT_ROWS, None]
        exact = part.float()
        normaliser = exact.logsumexp(dim=-1, keepdim=True)
        losses.append((normaliser - exact.gather(1, target))[:, 0])
        if wants_slopes:
            slope = exact.sub_(normaliser).exp_()
            slope.scatter_add_(1, target, torch.full_like(normaliser, -1.0))
            part.copy_(slope)
    return torch.cat(losses)
