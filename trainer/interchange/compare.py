"""Whether a conversion says the same: logits before and after it, on a few prompts.

Both sides run the decoder in float32 over the weights as their file has them, dequantised a matrix
at a time, so that what differs is the conversion's doing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from runtime.chat_format import ChatFormat
from runtime.gguf_file import GGUFFile, GGUFTensor, model_config
from runtime.model import Delta, Model
from runtime.modules import row_order
from runtime.quant import Linear
from specs.manifest import Activation

PROMPTS = (
    "What is the capital of France?",
    "Explain in one sentence why the sky is blue.",
    "Write a short poem about the sea.",
    "What is 12 times 7?",
    "Translate `good morning` into German.",
    "List three things to pack for a walk in the mountains.",
)
"""Asked beside a pack's own recorded prompts."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Agreement:
    """How far logits lie apart over `positions` tokens of some prompts."""

    prompts: int
    positions: int
    max_difference: float
    mean_difference: float
    top1: float
    """Share of the positions with the same likeliest token."""
    effect: float
    """Mean difference that the adapter itself makes to the base's logits, for scale."""


@dataclass(frozen=True)
class Question:
    """Tokens of a prompt and where the adapter begins to act."""

    tokens: tuple[int, ...]
    start: int


def questions(chat: ChatFormat, prompts: Sequence[str], activation: Activation) -> list[Question]:
    """The prompts in a base's chat format."""
    made = [chat.prompt([{"role": "user", "content": p}]) for p in dict.fromkeys(prompts)]
    full = activation == "full"
    return [Question(tuple(p.tokens), 0 if full else p.header_start) for p in made]


class Reference:
    """The decoder of one GGUF file, in float32."""

    def __init__(self, file: GGUFFile) -> None:
        self.model = _FileModel(file, model_config(file), CPU, None)

    @torch.no_grad()
    def logits(self, asked: Sequence[Question], *deltas: Delta | None) -> tuple[torch.Tensor, ...]:
        """For each delta float32 [positions, vocabulary] of all tokens from where a question's
        adapter acts.

        All run as one batch, filled up on the right, where nothing looks: a matrix is dequantised
        once.
        """
        width = max(len(q.tokens) for q in asked)
        tokens = torch.zeros(len(asked), width, dtype=torch.long)
        acts = torch.zeros(len(asked), width, dtype=torch.bool)
        for row, question in enumerate(asked):
            tokens[row, : len(question.tokens)] = torch.tensor(question.tokens)
            acts[row, question.start : len(question.tokens)] = True
        hidden, _ = self.model.forward(
            tokens.repeat(len(deltas), 1), delta=_SideBySide(deltas, acts)
        )
        return tuple(self.model.logits(part[acts]) for part in hidden.chunk(len(deltas)))


class _FileModel(Model):
    """Reads every matrix from its file when it is used."""

    def _linear(self, names: Sequence[str]) -> list[Linear]:
        return [
            _FileLinear(self._file.tensor(n), row_order(self.config, n))  # type: ignore[misc]
            for n in names
        ]


class _FileLinear:
    nbytes = 0

    def __init__(self, tensor: GGUFTensor, order: npt.NDArray[np.intp] | None) -> None:
        self.tensor, self.order = tensor, order

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.tensor.dequantized()
        return F.linear(x, torch.from_numpy(weight if self.order is None else weight[self.order]))


class _SideBySide:
    """As many deltas as the batch has equal parts, each where the mask [B, T] is true."""

    def __init__(self, deltas: Sequence[Delta | None], mask: torch.Tensor) -> None:
        self.deltas, self.mask = deltas, mask[..., None]

    def __call__(self, layer: int, group: str, x: torch.Tensor) -> torch.Tensor | None:
        parts = [
            None if delta is None else delta(layer, group, rows)
            for delta, rows in zip(self.deltas, x.chunk(len(self.deltas)), strict=True)
        ]
        some = next((p for p in parts if p is not None), None)
        if some is None:
            return None
        nothing = torch.zeros_like(some)
        return torch.cat([nothing if p is None else p * self.mask for p in parts])


def agreement(
    asked: Sequence[Question], base: torch.Tensor, before: torch.Tensor, after: torch.Tensor
) -> Agreement:
    """Compare logits [positions, vocabulary] of the same questions."""
    difference = (before - after).abs()
    return Agreement(
        prompts=len(asked),
        positions=len(before),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        top1=float((before.argmax(-1) == after.argmax(-1)).float().mean()),
        effect=float((before - base).abs().mean()),
    )
