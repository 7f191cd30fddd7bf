"""Cross-entropy through the frozen head, in pieces of rows.

The head never changes, so the gradient of each row's loss is known while its logits are at hand:
the head is dequantised once, and [rows, vocabulary] is never kept.
"""

from __future__ import annotations

from typing import Any

import torch

from trainer.frozen import HEAD, Matrices
from trainer.passes import passes_on

LOGITS, ROWS = 1 << 25, 256
"""Logits that stand in memory at once, in the matrices' type, and rows of them at most."""
_KEY = ("head", 0, HEAD)


class HeadLoss(torch.autograd.Function):
    """Negative log-likelihood in nats of `targets` [M], given normed hidden states [M, D]."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, matrices: Matrices, targets: torch.Tensor
    ) -> torch.Tensor:
        weight, passes = matrices.take(_KEY).weight, passes_on(hidden.device.type)
        wants_gradient = ctx.needs_input_grad[0]
        losses = torch.empty(len(hidden), device=hidden.device)
        low = hidden.to(weight.dtype)
        gradient = torch.empty_like(low) if wants_gradient else None
        at_once = rows_at_once(len(weight))
        room = weight.new_empty(min(at_once, len(low)), len(weight))
        for at in range(0, len(low), at_once):
            rows = slice(at, at + at_once)
            part = low[rows]
            logits = torch.mm(part, weight.T, out=room[: len(part)])
            losses[rows] = passes.cross_entropy(logits, targets[rows], wants_gradient)
            if gradient is not None:
                torch.mm(logits, weight, out=gradient[rows])
        matrices.release(_KEY)
        ctx.gradient = gradient
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0][:, None] * ctx.gradient, None, None


def rows_at_once(vocabulary: int) -> int:
    """Rows whose logits stand in memory at once."""
    return max(1, min(ROWS, LOGITS // vocabulary))
