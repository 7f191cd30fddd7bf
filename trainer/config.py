"""The hyper-parameters of a training run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from specs.manifest import Activation
from specs.model import Contract


class TrainingConfig(Contract):
    """What decides a training run, beside the data and the base.

    The learning rate follows "LoRA Without Regret" (Thinking Machines, 2025): about ten times that
    of full fine-tuning, nearly independent of the rank.
    """

    rank: Annotated[int, Field(ge=1, le=256)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    activation: Activation = "answer"
    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps in which the learning rate rises; it falls linearly to zero after."""
    batch_tokens: Annotated[int, Field(ge=64, le=1 << 20)] = 2048
    """Tokens of a step, padding included."""
    max_length: Annotated[int, Field(ge=16, le=1 << 20)] = 512
    """Tokens of an example; the start of a longer prompt is cut."""
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    seed: int = 0
