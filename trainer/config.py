"""The hyper-parameters of a training run."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from specs.manifest import Activation
from specs.model import Contract

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ALL: tuple[Projection, ...] = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
)  # fmt: skip


Schedule = Literal["linear", "cosine", "constant"]


class TrainingConfig(Contract):
    """What decides a training run, beside the data and the base.

    The learning rate follows "LoRA Without Regret" (Thinking Machines, 2025): about ten times that
    of full fine-tuning, nearly independent of the rank. docs/training.md has what was measured.
    """

    rank: Annotated[int, Field(ge=1, le=256)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    activation: Activation = "answer"
    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps in which the learning rate rises."""
    batch_tokens: Annotated[int, Field(ge=64, le=1 << 20)] = 2048
    """Tokens of a step, prompts included."""
    max_length: Annotated[int, Field(ge=16, le=1 << 20)] = 512
    """Tokens of an example; the start of a longer prompt is cut."""
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    seed: int = 0
    schedule: Schedule = "linear"
    """What the learning rate does after the warm-up."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) (Kalajdzievski, arXiv 2312.03732) instead of alpha / rank."""
    lora_plus: Annotated[float, Field(ge=1, le=64)] = 1.0
    """How many times A's learning rate B's is (Hayou et al., "LoRA+", arXiv 2402.12354)."""
    init: Literal["kaiming", "gaussian", "orthogonal"] = "kaiming"
    """How A is drawn; B is zero."""
    projections: Annotated[tuple[Projection, ...], Field(min_length=1)] = ALL
    """What the adapter attaches to."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    patience: Annotated[int, Field(ge=0, le=1000)] = 0
    """Stop after so many looks at the held-out rows that brought nothing better; 0 never stops."""
    looks: Annotated[int, Field(ge=1, le=1000)] = 1
    """Looks at the held-out rows in an epoch."""
    objective: Literal["auto", "answers", "preference"] = "auto"
    """`auto`: preference where every example is a pair."""
    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    """With preference pairs: how dear leaving the base is (Rafailov et al., arXiv 2305.18290)."""

    _late: ClassVar[tuple[str, ...]] = (
        "schedule", "rslora", "lora_plus", "init", "projections", "weight_decay", "patience",
        "looks", "objective", "beta",
    )  # fmt: skip

    @property
    def scale(self) -> float:
        """What B A x is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)
