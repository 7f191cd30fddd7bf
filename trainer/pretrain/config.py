"""A base's configuration: what to build, or which base to continue, and how to train it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from specs.model import Contract
from specs.names import Name
from trainer.config import Schedule

Type = Literal["F16", "Q8_0", "Q5_0", "Q4_1", "Q4_0"]
"""GGUF types of matrices that the `gguf` library writes and this runtime reads."""

GROUP = 32
"""Columns that share a scale in every quantised type."""


class Shape(Contract):
    """A llama decoder (grouped-query attention, rotary positions, SwiGLU, tied embeddings)."""

    layers: Annotated[int, Field(ge=1, le=128)]
    hidden_size: Annotated[int, Field(ge=GROUP, le=8192, multiple_of=GROUP)]
    ffn_size: Annotated[int, Field(ge=GROUP, le=32768, multiple_of=GROUP)]
    heads: Annotated[int, Field(ge=1, le=128)]
    kv_heads: Annotated[int, Field(ge=1, le=128)]
    context_length: Annotated[int, Field(ge=16, le=1 << 17)] = 512
    rope_theta: Annotated[float, Field(gt=0, le=1e9)] = 10000.0
    norm_eps: Annotated[float, Field(gt=0, le=0.1)] = 1e-5

    @model_validator(mode="after")
    def _fits(self) -> Shape:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is no even multiple of {self.heads} heads"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads do not share {self.kv_heads} kv_heads evenly")
        return self


class TokenizerOptions(Contract):
    """A byte-level BPE tokenizer, trained on the same text."""

    vocab_size: Annotated[int, Field(ge=300, le=1 << 17)]


class Pretraining(Contract):
    """What decides the run. Defaults are those of small llama models (Zhang et al., "TinyLlama",
    arXiv 2401.02385), with the larger rate that few parameters take."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps in which the learning rate rises."""
    schedule: Schedule = "cosine"
    """What it does after that."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of matrices; norms and biases have none."""
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    window: Annotated[int, Field(ge=8, le=1 << 16)] = 256
    """Tokens of a training sequence."""
    batch_tokens: Annotated[int, Field(ge=8, le=1 << 22)] = 4096
    """Tokens of a step."""
    chat_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of an epoch's windows that are conversations made of the data, in the chat format."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the multiplications; weights and moments are float32 always."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_window(self) -> Pretraining:
        if self.batch_tokens < self.window:
            raise ValueError(
                f"batch_tokens {self.batch_tokens} hold no window of {self.window} tokens"
            )
        return self


class BaseConfig(Contract):
    """The file `mbpm train --base` takes."""

    format: Literal[1] = 1
    name: Name
    description: Annotated[str, Field(min_length=1, max_length=2000)]
    license: Annotated[str, Field(min_length=1, max_length=200)]
    """An SPDX licence expression, which has to be one the texts allow."""
    continues: Name | None = None
    """An installed base to go on from: it gives shape, tokenizer and chat format."""
    model: Shape | None = None
    tokenizer: TokenizerOptions | None = None
    training: Pretraining = Pretraining()
    held_out: tuple[str, ...] = ()
    """Documents of the data kept for evaluation; else the last tenth of every document is."""
    quantization: Type = "Q8_0"

    @model_validator(mode="after")
    def _new_or_continued(self) -> BaseConfig:
        built = self.model is not None and self.tokenizer is not None
        if self.continues is None and not built:
            raise ValueError("needs [model] and [tokenizer], or `continues` with a base's name")
        if self.continues is not None and (self.model or self.tokenizer):
            raise ValueError("`continues` takes [model] and [tokenizer] from that base")
        if self.model is not None and self.training.window > self.model.context_length:
            raise ValueError(
                f"training.window {self.training.window} is more than "
                f"model.context_length {self.model.context_length}"
            )
        return self
