"""The decoder (llama and qwen2): one definition for the reference, the CPU, the GPU and training.

Grouped-query attention, rotary positions, RMS norm, SwiGLU, as in the Hugging Face models of the
same names. Shapes: B sequences, T tokens, D hidden, H heads, K key/value heads, d head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from runtime.codes import Codes, read_codes
from runtime.engine import ModelConfig
from runtime.gguf_file import GGUFFile, GGUFTensor
from runtime.modules import PROJECTIONS, check_weights, row_order
from runtime.quant import FloatLinear, Int4PackLinear, Linear
from specs.errors import IntegrityError

FUSED = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "o": ("o_proj",),
    "gate_up": ("gate_proj", "up_proj"),
    "down": ("down_proj",),
}
"""Projections that read the same input are one matrix in memory."""

RESCORED, RESCORED_ROWS = 64, 32
"""Tokens whose logits are computed again, and hidden states for which that is done at once."""

MakeLinear = Callable[[Codes], Linear]


class Delta(Protocol):
    """What the active adapters add to the output of a fused projection."""

    def __call__(self, layer: int, group: str, x: torch.Tensor) -> torch.Tensor | None:
        """[..., in] -> [..., out], or None for nothing."""


class KVStore(Protocol):
    """Where a forward pass keeps keys and values."""

    length: int

    def append(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take a layer's new [B, K, T, d]; return all that its queries may attend to."""


class KVCache:
    """Static keys and values of one sequence: [layers, K, capacity, d] each."""

    def __init__(
        self, config: ModelConfig, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.layers, config.kv_heads, capacity, config.head_dim)
        # not zeroed: nothing behind `length` is ever read, and untouched memory costs none
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.capacity = capacity
        self.length = 0

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a cache of {self.length} tokens to {length}")
        self.length = length

    def append(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store [1, K, T, d] behind the tokens held; return all of them, [1, K, length + T, d]."""
        end = self.length + k.shape[2]
        self.keys[layer, :, self.length : end] = k[0]
        self.values[layer, :, self.length : end] = v[0]
        return self.keys[layer, None, :, :end], self.values[layer, None, :, :end]

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


@dataclass
class _Layer:
    attention_norm: torch.Tensor  # [D]
    ffn_norm: torch.Tensor  # [D]
    linears: dict[str, list[Linear]]  # fused group -> one matrix, or several where bits differ
    qkv_bias: torch.Tensor | None  # [(H + 2K) d]

    def project(self, index: int, group: str, x: torch.Tensor, delta: Delta | None) -> torch.Tensor:
        parts = [linear(x) for linear in self.linears[group]]
        y = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        if delta is not None:
            added = delta(index, group, x)
            if added is not None:
                y = y + added
        return y


class Model:
    """Weights of a GGUF file behind `Linear` operators, and the forward pass over them."""

    def __init__(
        self,
        file: GGUFFile,
        config: ModelConfig,
        device: torch.device,
        make_linear: MakeLinear | None,
        layers: int | None = None,
    ) -> None:
        """Args:
        make_linear: from canonical codes; None keeps float32 weights (the reference).
        layers: load only the first ones, and nothing to make logits with.

        Raises:
            IntegrityError: a tensor is missing, has a wrong shape, or holds NaN or infinity.
            MbpmError: there is a tensor that this runtime cannot use.
        """
        check_weights(file, config)
        self.config, self.device = config, device
        self._embedding = file.tensor("token_embd.weight")
        self._file = file
        self._make_linear = make_linear
        self.layers = [self._layer(i) for i in range(config.layers)[:layers]]
        self.output_norm = self._vector("output_norm.weight")
        tied = "output.weight" not in file.tensors
        self._head_rows = file.tensor("token_embd.weight" if tied else "output.weight")
        self.head = None if layers is not None else self._linear([self._head_rows.name])[0]
        file.let_go()

    def _vector(self, name: str) -> torch.Tensor:
        values = self._file.tensor(name).dequantized()
        if not np.isfinite(values).all():
            raise IntegrityError(f"{self._file.path}: tensor `{name}` holds NaN or infinity")
        return torch.from_numpy(values).to(self.device)

    def _linear(self, names: Sequence[str]) -> list[Linear]:
        """One operator over the named tensors stacked by rows, or one each where bits differ."""
        orders = [row_order(self.config, n) for n in names]
        if self._make_linear is None:
            weights = [self._file.tensor(n).dequantized() for n in names]
            weights = [w if o is None else w[o] for w, o in zip(weights, orders, strict=True)]
            return [FloatLinear(torch.from_numpy(np.concatenate(weights)).to(self.device))]
        codes = [read_codes(self._file.tensor(n)) for n in names]
        codes = [c if o is None else c.rows(o) for c, o in zip(codes, orders, strict=True)]
        if len({c.bits for c in codes}) == 1:
            return [self._make_linear(Codes.concatenate(codes))]
        return [self._make_linear(c) for c in codes]

    def _layer(self, index: int) -> _Layer:
        block = f"blk.{index}"
        linears = {
            group: self._linear([f"{block}.{PROJECTIONS[p][1]}.weight" for p in projections])
            for group, projections in FUSED.items()
        }
        bias = None
        if self.config.qkv_bias:
            bias = torch.cat([self._vector(f"{block}.attn_{x}.bias") for x in "qkv"])
        self._file.let_go()
        return _Layer(
            self._vector(f"{block}.attn_norm.weight"),
            self._vector(f"{block}.ffn_norm.weight"),
            linears,
            bias,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices held in memory; norms and biases are too few to count."""
        operators = [m for layer in self.layers for ms in layer.linears.values() for m in ms]
        return sum(m.nbytes for m in [*operators, self.head] if m is not None)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, T] ids -> float32 [B, T, D]; rows are dequantised from the file when needed."""
        x = _dequantized_rows(self._embedding, tokens.reshape(-1))
        return x.reshape(*tokens.shape, -1).to(self.device)

    def let_go(self) -> None:
        """Give the pages of the file that rows were read from back to the system."""
        self._file.let_go()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [n, vocabulary] of normed hidden states [n, D].

        The packed operator answers in bfloat16, whose steps are a sixteenth at the size of a logit
        and make ties: the likeliest tokens are scored again in float32 from their rows in the file.
        """
        assert self.head is not None, "only the first layers were loaded"
        scores = self.head(hidden).float()
        if not isinstance(self.head, Int4PackLinear):
            return scores
        for at in range(0, len(hidden), RESCORED_ROWS):
            part, states = scores[at : at + RESCORED_ROWS], hidden[at : at + RESCORED_ROWS]
            likeliest = part.topk(min(RESCORED, part.shape[-1]), dim=-1).indices  # [n, RESCORED]
            rows = _dequantized_rows(self._head_rows, likeliest.reshape(-1))
            rows = rows.reshape(*likeliest.shape, -1)
            part.scatter_(1, likeliest, torch.einsum("nd,nkd->nk", states.float(), rows))
        return scores

    def forward(
        self,
        tokens: torch.Tensor,
        cache: KVStore | None = None,
        delta: Delta | None = None,
        hidden_layer: int | None = None,
        *,
        positions: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run [B, T] tokens behind what the cache holds.

        Args:
            positions: [B, T]; by default those that follow the cache's length.
            mask: bool [B, 1, T, past + T], True where attention may look; causal by default.

        Returns:
            The normed final hidden state [B, T, D], and the residual stream after `hidden_layer`.
        """
        c = self.config
        batch, length = tokens.shape
        past = 0 if cache is None else cache.length
        if positions is None:
            positions = torch.arange(past, past + length, device=self.device)
        rotation = self.rotation(positions)
        causal = mask is None and past == 0 and length > 1
        if mask is None and past and length > 1:
            allowed = torch.ones(length, past + length, dtype=torch.bool, device=self.device)
            mask = allowed.tril(past)
        x = self.embed(tokens)
        captured = None
        for index, layer in enumerate(self.layers):
            h = F.rms_norm(x, (c.hidden_size,), layer.attention_norm, c.norm_eps)
            qkv = layer.project(index, "qkv", h, delta)
            if layer.qkv_bias is not None:
                qkv = qkv + layer.qkv_bias
            qkv = qkv.reshape(batch, length, -1, c.head_dim).transpose(1, 2)  # [B, H + 2K, T, d]
            q = _rotate(qkv[:, : c.heads], rotation)
            k = _rotate(qkv[:, c.heads : c.heads + c.kv_heads], rotation)
            v = qkv[:, c.heads + c.kv_heads :]
            if cache is not None:
                k, v = cache.append(index, k, v)
                q = q.to(k.dtype)
            attended = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True
            )
            attended = attended.transpose(1, 2).reshape(batch, length, -1).to(x.dtype)
            x = x + layer.project(index, "o", attended, delta)
            h = F.rms_norm(x, (c.hidden_size,), layer.ffn_norm, c.norm_eps)
            gate, up = layer.project(index, "gate_up", h, delta).chunk(2, dim=-1)
            x = x + layer.project(index, "down", F.silu(gate) * up, delta)
            if index == hidden_layer:
                captured = x
        if cache is not None:
            cache.length += length
        return F.rms_norm(x, (c.hidden_size,), self.output_norm, c.norm_eps), captured

    def rotation(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine of the rotary angles (Su et al., arXiv 2104.09864).

        [T] positions give [T, d]; [B, T] give [B, 1, T, d].
        """
        d = self.config.head_dim
        exponents = torch.arange(0, d, 2, dtype=torch.float32, device=self.device) / d
        angles = positions.float()[..., None] * self.config.rope_theta**-exponents
        angles = torch.cat([angles, angles], dim=-1)
        if positions.dim() == 2:
            angles = angles[:, None]
        return angles.cos(), angles.sin()


def _dequantized_rows(tensor: GGUFTensor, ids: torch.Tensor) -> torch.Tensor:
    """float32 [n, columns] of the rows `ids` [n], read from the file as they are needed."""
    rows = dequantize(tensor.data[ids.cpu().numpy()], GGMLQuantizationType[tensor.type])
    return torch.from_numpy(np.array(rows, dtype=np.float32))


def _rotate(x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
