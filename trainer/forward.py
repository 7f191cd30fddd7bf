"""One packed batch through the quantised base with an adapter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from runtime.model import Model
from trainer.frozen import Matrices
from trainer.head import HeadLoss
from trainer.layer import LayerFunction, Run
from trainer.packing import Packed


def token_losses(
    matrices: Matrices,
    packed: Packed,
    prompts: Sequence[torch.Tensor] | None,
    *,
    recompute: bool = False,
) -> torch.Tensor:
    """Negative log-likelihood in nats of every counted token, in row order: [M].

    Args:
        matrices: the base and the adapter, begun for as many calls as share them.
        prompts: what stands before the rows' own tokens (trainer.prompts), None where nothing does.
        recompute: run every layer again in the backward pass, to keep less.
    """
    model: Model = matrices.model
    adapter = matrices.adapter if torch.is_grad_enabled() else None
    run = Run(model, matrices, packed, prompts, recompute)
    x = model.embed(packed.tokens)
    model.let_go()
    for index in range(len(model.layers)):
        tensors = adapter.of_layer(index) if adapter is not None else []
        x = LayerFunction.apply(x, run, index, *tensors)  # type: ignore[no-untyped-call]
    hidden = F.rms_norm(
        x[packed.predict], (model.config.hidden_size,), model.output_norm, model.config.norm_eps
    )
    losses: torch.Tensor = HeadLoss.apply(hidden, matrices, packed.targets)  # type: ignore[no-untyped-call]
    return losses
