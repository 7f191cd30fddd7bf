"""One batch through the quantised base with an adapter: prompt once without gradient, then the
part the adapter acts on."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from runtime.model import Delta, Model
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
    logits = model.head(hidden[batch.predict])
    return F.cross_entropy(logits.float(), batch.targets[batch.predict], reduction="none")
