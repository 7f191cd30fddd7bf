"""A decoder layer of the runtime's model on packed tokens, with its backward pass written out.

The base is frozen, so the backward pass of a projection is one product with W. An adapter's A and B
ride along: [h, A h] times [W, scale B] is one product forward, and its gradient is one backward.
What autograd would keep is not kept: norms, rotations and activations are made again.

Shapes: N flat tokens, D hidden, H heads, K key/value heads, d head size, F feed-forward size.
Arithmetic: the residual stream, norms and rotations are float32, products of the matrices' type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from runtime.model import FUSED, Model
from trainer.attention import attend, attend_backward
from trainer.frozen import Matrices, Matrix
from trainer.packing import Packed

FORWARD, BACKWARD = "forward", "backward"
Gradients = list[torch.Tensor]
"""Of A and B of every pair, in the order of `TrainableAdapter.of_layer`."""


@dataclass
class _Kept:
    """What a layer's backward pass needs."""

    x: torch.Tensor  # [N, D]
    x_inverse: torch.Tensor  # float32 [N, 1]: 1 / root mean square of x
    middle: torch.Tensor  # [N, D]: after attention
    middle_inverse: torch.Tensor
    qkv: torch.Tensor  # [N, (H + 2K) d], rotated
    attended: torch.Tensor  # [N, H d]
    gate_up: torch.Tensor  # [N, 2 F]
    shrunk: dict[str, torch.Tensor]  # group -> A h, [N, R]


class Run:
    """One packed batch on its way through the layers."""

    def __init__(
        self,
        model: Model,
        matrices: Matrices,
        packed: Packed,
        prompts: Sequence[torch.Tensor] | None,
        recompute: bool,
    ) -> None:
        """Args:
        prompts: per block keys and values before its tokens, [layers, 2, B, K, P, d].
        recompute: keep only what enters a layer, and run it again in the backward pass.
        """
        self.model, self.matrices, self.packed = model, matrices, packed
        self.prompts, self.recompute = prompts, recompute
        cos, sin = model.rotation(packed.positions)
        half = model.config.head_dim // 2
        self.cos, self.sin = cos[:, None, :half], sin[:, None, :half]  # [N, 1, d / 2]

    def forward(
        self, index: int, x: torch.Tensor, when: str, keep: bool
    ) -> tuple[torch.Tensor, _Kept | None]:
        """What leaves layer `index` where float32 [N, D] `x` enters it."""
        layer = self.model.layers[index]
        shrunk: dict[str, torch.Tensor] = {}

        def project(group: str, h: torch.Tensor) -> torch.Tensor:
            matrix = self.matrices.take((when, index, group))
            y, shrunk[group] = _project(matrix, h)
            if when != BACKWARD:
                self.matrices.release((when, index, group))
            return y

        h, x_inverse = self._norm(x, layer.attention_norm)
        qkv = project("qkv", h)
        if layer.qkv_bias is not None:
            qkv += layer.qkv_bias.to(qkv.dtype)
        self._rotate(qkv, self.sin)
        attended = self._attend(index, qkv)
        middle = x + project("o", attended)
        h, middle_inverse = self._norm(middle, layer.ffn_norm)
        gate_up = project("gate_up", h)
        gate, up = gate_up.chunk(2, dim=-1)
        active = F.silu(gate).mul_(up)
        if when == BACKWARD:  # what leaves the layer is known
            y = x
            shrunk["down"] = active @ self.matrices.take((when, index, "down")).a.T
        else:
            y = middle + project("down", active)
        if not keep:
            return y, None
        kind = self.matrices.dtype
        return y, _Kept(
            x.to(kind), x_inverse, middle.to(kind), middle_inverse, qkv, attended, gate_up, shrunk
        )

    def backward(
        self, index: int, kept: _Kept, grad: torch.Tensor, wants_x: bool
    ) -> tuple[torch.Tensor | None, Gradients]:
        """Gradients of `x` and of the adapter, given float32 [N, D] of what left the layer."""
        layer = self.model.layers[index]
        gradients: dict[str, Gradients] = {}

        def back(group: str, g: torch.Tensor, h: torch.Tensor, wants: bool = True) -> torch.Tensor:
            matrix = self.matrices.take((BACKWARD, index, group))
            dh, gradients[group] = self._back(matrix, index, group, g, h, kept.shrunk[group], wants)
            self.matrices.release((BACKWARD, index, group))
            return dh

        kind = self.matrices.dtype
        gate, up = kept.gate_up.chunk(2, dim=-1)
        silu = F.silu(gate)
        d_act = back("down", grad.to(kind), silu * up)
        d_gate_up = torch.empty_like(kept.gate_up)
        torch.mul(d_act, silu, out=d_gate_up[:, gate.shape[1] :])
        d_gate_up[:, : gate.shape[1]] = torch.ops.aten.silu_backward(d_act.mul_(up), gate)
        del silu, d_act
        h = self._normed(kept.middle, kept.middle_inverse, layer.ffn_norm)
        dh = back("gate_up", d_gate_up, h)
        del d_gate_up
        d_middle = grad + self._norm_backward(dh, kept.middle, kept.middle_inverse, layer.ffn_norm)
        d_attended = back("o", d_middle.to(kind), kept.attended)
        d_qkv = self._attend_backward(index, kept.qkv, d_attended)
        self._rotate(d_qkv, -self.sin)
        h = self._normed(kept.x, kept.x_inverse, layer.attention_norm)
        dh = back("qkv", d_qkv, h, wants_x)
        dx = None
        if wants_x:
            dx = d_middle + self._norm_backward(dh, kept.x, kept.x_inverse, layer.attention_norm)
        return dx, [g for group in FUSED for g in gradients[group]]

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        inverse = square.add_(self.model.config.norm_eps).rsqrt_()
        return self._normed(x, inverse, weight), inverse

    def _normed(self, x: torch.Tensor, inverse: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (x * inverse).mul_(weight).to(self.matrices.dtype)

    @staticmethod
    def _norm_backward(
        grad: torch.Tensor, x: torch.Tensor, inverse: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """float32 gradient of x, where x * inverse * weight has the gradient `grad`."""
        scaled = grad.float().mul_(weight)
        normed = x * inverse
        along = torch.linalg.vecdot(scaled, normed)[:, None] / x.shape[-1]
        return scaled.sub_(normed.mul_(along)).mul_(inverse)

    def _rotate(self, qkv: torch.Tensor, sin: torch.Tensor) -> None:
        """Rotate queries and keys of [N, (H + 2K) d] in place."""
        c = self.model.config
        turned = qkv.view(len(qkv), -1, c.head_dim)[:, : c.heads + c.kv_heads]
        first, second = turned.to(torch.float32, copy=True).chunk(2, dim=-1)
        half = c.head_dim // 2
        turned[..., :half] = first * self.cos - second * sin
        turned[..., half:] = second * self.cos + first * sin

    def _block(
        self, index: int, number: int, qkv: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries [B, H, T, d], keys and values [B, K, P + T, d] of a block."""
        c = self.model.config
        block = self.packed.blocks[number]
        part = qkv[block.begin : block.end]
        if block.rectangle is not None:
            part = part.index_select(0, block.rectangle)
        cells = part.view(len(block.rows), block.width, -1, c.head_dim).transpose(1, 2)
        q, k, v = torch.split(cells, [c.heads, c.kv_heads, c.kv_heads], dim=1)
        if self.prompts is not None and block.prompt_width:
            before = self.prompts[number][index]
            k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
        return q, k, v

    def _attend(self, index: int, qkv: torch.Tensor) -> torch.Tensor:
        """[N, H d]."""
        c = self.model.config
        out = qkv.new_empty(len(qkv), c.heads * c.head_dim)
        for number, block in enumerate(self.packed.blocks):
            made = attend(*self._block(index, number, qkv), block.mask)
            cells = made.transpose(1, 2).reshape(-1, out.shape[1])
            if block.flat is not None:
                cells = cells.index_select(0, block.flat)
            out[block.begin : block.end] = cells
        return out

    def _attend_backward(self, index: int, qkv: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """[N, (H + 2K) d], given [N, H d]."""
        out = torch.empty_like(qkv)
        for number, block in enumerate(self.packed.blocks):
            q, k, v = self._block(index, number, qkv)
            part = grad[block.begin : block.end]
            if block.flat is not None:
                cells = part.new_zeros(len(block.rows) * block.width, part.shape[1])
                part = cells.index_copy_(0, block.flat, part)
            count, heads, width, size = q.shape
            g = part.view(count, width, heads, size).transpose(1, 2)
            made = torch.cat(attend_backward(g, q, k, v, block.mask), dim=1)
            cells = made.transpose(1, 2).reshape(count * width, -1)
            if block.flat is not None:
                cells = cells.index_select(0, block.flat)
            out[block.begin : block.end] = cells
        return out

    def _back(
        self,
        matrix: Matrix,
        index: int,
        group: str,
        g: torch.Tensor,
        h: torch.Tensor,
        shrunk: torch.Tensor,
        wants_h: bool,
    ) -> tuple[torch.Tensor, Gradients]:
        """Gradients of h [N, in] and of A and B, given g [N, out]."""
        columns = matrix.columns
        if wants_h:
            extended = g @ matrix.weight
            d_shrunk = extended[:, columns:]
            dh = extended[:, :columns]
            if len(matrix.a):
                dh = dh + d_shrunk @ matrix.a
        else:
            d_shrunk = g @ matrix.weight[:, columns:]
            dh = h
        adapter = self.matrices.adapter
        if adapter is None:
            return dh, []
        d_a = (d_shrunk.T @ h).float()
        made, at = [], 0
        for pair in adapter.pairs(index, group):
            ranks = slice(at, at + len(pair.a))
            d_b = (g[:, pair.rows].T @ shrunk[:, ranks]).float().mul_(pair.scale)
            made += [d_a[ranks], d_b]
            at = ranks.stop
        return dh, made


def _project(matrix: Matrix, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, out] with the adapter's share, and A h [N, R]."""
    shrunk = h @ matrix.a.T
    if not len(matrix.a):
        return h @ matrix.weight.T, shrunk
    return torch.cat([h, shrunk], dim=1) @ matrix.weight.T, shrunk


class LayerFunction(torch.autograd.Function):
    """A layer as one step of autograd: x, the run, the layer's index, and its A and B."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, run: Run, index: int, *adapter: torch.Tensor
    ) -> torch.Tensor:
        keep = bool(adapter) and any(ctx.needs_input_grad)
        y, kept = run.forward(index, x, FORWARD, keep and not run.recompute)
        if keep:
            ctx.run, ctx.index = run, index
            ctx.kept = x if run.recompute else kept
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        run, index, kept = ctx.run, ctx.index, ctx.kept
        ctx.kept = None
        if run.recompute:
            _, kept = run.forward(index, kept, BACKWARD, True)
        dx, gradients = run.backward(index, kept, grads[0], ctx.needs_input_grad[0])
        return (dx, None, None, *gradients)
