"""A decoder with float weights that can all be trained; its forward pass is the runtime's."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from runtime.engine import ModelConfig
from runtime.gguf_file import GGUFFile, GGUFTensor
from runtime.model import FUSED, Model, _Layer
from runtime.modules import PROJECTIONS, row_order, tensor_shapes
from runtime.quant import FloatLinear
from trainer.gguf_write import quantized, to_file_rows

INIT_STD = 0.02
BELOW_8_BITS = ("Q4_0", "Q4_1", "Q5_0")
HEAD_ROWS = 1024
"""Tokens whose logits exist at once."""


class FloatModel(Model):
    """Trainable weights by GGUF tensor name, query and key rows in the order of computation."""

    def __init__(self, config: ModelConfig, weights: dict[str, torch.Tensor]) -> None:
        self.config, self.weights = config, weights
        self.device = weights["token_embd.weight"].device
        self._view()
        self.output_norm = weights["output_norm.weight"]
        self.head = FloatLinear(weights.get("output.weight", weights["token_embd.weight"]))

    def _view(self) -> None:
        """Lay the weights out as the forward pass reads them; copies biases only."""
        self.layers = [self._float_layer(i) for i in range(self.config.layers)]

    def _float_layer(self, index: int) -> _Layer:
        block = f"blk.{index}"
        linears = {
            group: [
                FloatLinear(self.weights[f"{block}.{PROJECTIONS[p][1]}.weight"])
                for p in projections
            ]
            for group, projections in FUSED.items()
        }
        bias = None
        if self.config.qkv_bias:
            bias = torch.cat([self.weights[f"{block}.attn_{x}.bias"] for x in "qkv"])
        return _Layer(
            self.weights[f"{block}.attn_norm.weight"],
            self.weights[f"{block}.ffn_norm.weight"],
            linears,  # type: ignore[arg-type]  # lists are invariant, and these are only read
            bias,
        )

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, T] ids -> [B, T, D]."""
        return F.embedding(tokens, self.weights["token_embd.weight"])

    def losses(self, windows: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood in nats of every token but the first: [B, T + 1] -> [B * T].

        Logits are made of a piece of rows at a time, and again in the backward pass.
        """
        self._view()  # joined biases belong to one backward pass
        hidden, _ = self.forward(windows[:, :-1])
        flat, targets = hidden.reshape(-1, hidden.shape[-1]), windows[:, 1:].reshape(-1)

        head = self.head
        assert head is not None

        def piece(rows: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(head(rows).float(), wanted, reduction="none")

        parts = []
        for at in range(0, len(flat), HEAD_ROWS):
            rows, wanted = flat[at : at + HEAD_ROWS], targets[at : at + HEAD_ROWS]
            parts.append(checkpoint(piece, rows, wanted, use_reentrant=False))
        return torch.cat(parts)

    def tensors(self, kind: str) -> Iterator[GGUFTensor]:
        """The weights as a GGUF file holds them, embeddings and output with 8 bits or more."""
        for name, weight in self.weights.items():
            values = weight.detach().cpu().numpy()
            order = to_file_rows(name, self.config)
            finer = kind in BELOW_8_BITS and name in ("token_embd.weight", "output.weight")
            yield quantized(
                name, values if order is None else values[order], "Q8_0" if finer else kind
            )


def new_weights(config: ModelConfig, seed: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Random weights: normal, and smaller where a layer writes into the residual stream, as in
    Radford et al., "Language Models are Unsupervised Multitask Learners" (GPT-2)."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in tensor_shapes(config).items():
        if len(shape) == 1:
            tensor = torch.zeros(shape) if name.endswith(".bias") else torch.ones(shape)
        else:
            into_residual = name.split(".")[-2] in ("attn_output", "ffn_down")
            std = INIT_STD / (2 * config.layers) ** 0.5 if into_residual else INIT_STD
            tensor = torch.randn(shape, generator=generator) * std
        weights[name] = tensor.to(device).requires_grad_()
    return weights


def read_weights(
    file: GGUFFile, config: ModelConfig, device: torch.device
) -> dict[str, torch.Tensor]:
    """The dequantised weights of a base that is to be trained on."""
    weights = {}
    for name, tensor in file.tensors.items():
        values = tensor.dequantized()
        order = row_order(config, name)
        if order is not None:
            values = values[order]
        weights[name] = torch.from_numpy(values).to(device).requires_grad_()
    return weights
