"""A decoder layer of the runtime's model on packed tokens, with its backward pass written out.

The base is frozen, so the backward pass of a projection is one product with W. An adapter's A and B
ride along: [h, A h] times [W, scale B] is one product forward, and its gradient is one backward.
What autograd would keep is not kept: norms, rotations and activations are made again. What is no
matrix product is a pass of `trainer.passes`.

Shapes: N flat tokens, D hidden, H heads, K key/value heads, d head size, F feed-forward size.
Arithmetic: the residual stream, norms and rotations are float32, products of the matrices' type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from runtime.model import FUSED, Model
from trainer.attention import attend, attend_backward
from trainer.frozen import BACKWARD, FORWARD, Matrices
from trainer.packing import Packed
from trainer.passes import passes_on

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
    shrunk: dict[str, torch.Tensor]  # group -> A h, [R, N]


class _Projection:
    """A matrix in use, and room for what it is to multiply."""

    def __init__(self, matrices: Matrices, when: str, index: int, group: str, count: int) -> None:
        self._matrices, self._key = matrices, (when, index, group)
        self.matrix = matrices.take(self._key)
        self._extended = self.matrix.weight.new_empty(count, self.matrix.weight.shape[1])
        self.h = self._extended[:, : self.matrix.columns]
        """[N, in], to be written."""

    def shrink(self) -> torch.Tensor:
        """A h, [R, N]."""
        made = self._extended[:, self.matrix.columns :]
        if len(self.matrix.a):
            torch.mm(self.h, self.matrix.a.T, out=made)
        return made.T.contiguous()

    def product(self) -> torch.Tensor:
        """W h + scale B A h, [N, out], after `shrink`."""
        return self._extended @ self.matrix.weight.T

    def release(self) -> None:
        """The matrix is not used any more."""
        self._matrices.release(self._key)


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
        self.passes = passes_on(model.device.type)
        cos, sin = model.rotation(packed.positions)
        half = model.config.head_dim // 2
        self.cos, self.sin = cos[:, :half].contiguous(), sin[:, :half].contiguous()  # [N, d / 2]

    def forward(
        self, index: int, x: torch.Tensor, when: str, keep: bool
    ) -> tuple[torch.Tensor, _Kept | None]:
        """What leaves layer `index` where float32 [N, D] `x` enters it."""
        layer, passes, eps = self.model.layers[index], self.passes, self.model.config.norm_eps
        shrunk: dict[str, torch.Tensor] = {}

        def begin(group: str) -> _Projection:
            return _Projection(self.matrices, when, index, group, len(x))

        def project(group: str, projection: _Projection) -> torch.Tensor:
            shrunk[group] = projection.shrink()
            y = projection.product()
            if when != BACKWARD:
                projection.release()
            return y

        def room() -> torch.Tensor | None:
            return torch.empty_like(x, dtype=self.matrices.dtype) if keep else None

        qkv_of, kept_x = begin("qkv"), room()
        _, x_inverse = passes.norm(x, None, layer.attention_norm, eps, qkv_of.h, kept_x)
        qkv = project("qkv", qkv_of)
        self._rotate(qkv, layer.qkv_bias, 1.0)
        o_of = begin("o")
        attended = o_of.h
        self._attend(index, qkv, attended)
        added = project("o", o_of)
        gate_up_of, kept_middle = begin("gate_up"), room()
        middle, middle_inverse = passes.norm(
            x, added, layer.ffn_norm, eps, gate_up_of.h, kept_middle
        )
        gate_up = project("gate_up", gate_up_of)
        down_of = begin("down")
        passes.swiglu(gate_up, down_of.h)
        if when == BACKWARD:  # what leaves the layer is known
            y = x
            shrunk["down"] = down_of.shrink()
        else:
            y = middle.add_(project("down", down_of))
        if kept_x is None or kept_middle is None:
            return y, None
        return y, _Kept(
            kept_x, x_inverse, kept_middle, middle_inverse, qkv, attended, gate_up, shrunk
        )

    def backward(
        self, index: int, kept: _Kept, grad: torch.Tensor, wants_x: bool
    ) -> tuple[torch.Tensor | None, Gradients]:
        """Gradients of `x` and of the adapter, given float32 [N, D] of what left the layer."""
        layer, passes = self.model.layers[index], self.passes
        gradients: dict[str, Gradients] = {}

        def back(
            group: str, g: torch.Tensor, wants: bool = True
        ) -> tuple[torch.Tensor, torch.Tensor]:
            matrix = self.matrices.take((BACKWARD, index, group))
            made = matrix.backward(g, wants)
            self.matrices.release((BACKWARD, index, group))
            return made

        def adapt(group: str, g: torch.Tensor, h: torch.Tensor, d_shrunk: torch.Tensor) -> None:
            gradients[group] = self._of_adapter(index, group, g, h, kept.shrunk[group], d_shrunk)

        low = grad.to(self.matrices.dtype)
        d_active, d_shrunk = back("down", low)
        d_gate_up, active = passes.swiglu_backward(d_active, kept.gate_up)
        adapt("down", low, active, d_shrunk)
        del d_active, active
        dh, d_shrunk = back("gate_up", d_gate_up)
        h = torch.empty_like(kept.middle)
        passes.normed(kept.middle, kept.middle_inverse, layer.ffn_norm, h)
        adapt("gate_up", d_gate_up, h, d_shrunk)
        del d_gate_up
        low = torch.empty_like(kept.middle)
        d_middle = passes.norm_backward(
            dh, kept.middle, kept.middle_inverse, layer.ffn_norm, grad, low
        )
        d_attended, d_shrunk = back("o", low)
        adapt("o", low, kept.attended, d_shrunk)
        d_qkv = self._attend_backward(index, kept.qkv, d_attended)
        self._rotate(d_qkv, None, -1.0)
        dh, d_shrunk = back("qkv", d_qkv, wants_x)
        passes.normed(kept.x, kept.x_inverse, layer.attention_norm, h)
        adapt("qkv", d_qkv, h, d_shrunk)
        dx = None
        if wants_x:
            dx = passes.norm_backward(
                dh, kept.x, kept.x_inverse, layer.attention_norm, d_middle, None
            )
        return dx, [g for group in FUSED for g in gradients[group]]

    def _rotate(self, qkv: torch.Tensor, bias: torch.Tensor | None, turn: float) -> None:
        """Add a bias to [N, (H + 2K) d] and rotate its queries and keys, in place."""
        c = self.model.config
        self.passes.rotate(qkv, bias, self.cos, self.sin, c.heads + c.kv_heads, turn)

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

    def _attend(self, index: int, qkv: torch.Tensor, out: torch.Tensor) -> None:
        """Write to [N, H d]."""
        for number, block in enumerate(self.packed.blocks):
            made = attend(self.passes, *self._block(index, number, qkv), block.mask)
            to = out[block.begin : block.end]
            if block.flat is None:
                to.view(len(block.rows), block.width, *made.shape[1::2]).copy_(made.transpose(1, 2))
            else:
                to.copy_(made.transpose(1, 2).reshape(-1, out.shape[1]).index_select(0, block.flat))

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
            made = attend_backward(self.passes, g, q, k, v, block.mask)
            to = out[block.begin : block.end]
            cells = to if block.flat is None else to.new_empty(count * width, to.shape[1])
            split = cells.view(count, width, -1, size).transpose(1, 2)
            begin = 0
            for d in made:
                split[:, begin : begin + d.shape[1]] = d
                begin += d.shape[1]
            if block.flat is not None:
                torch.index_select(cells, 0, block.flat, out=to)
        return out

    def _of_adapter(
        self,
        index: int,
        group: str,
        g: torch.Tensor,
        h: torch.Tensor,
        shrunk: torch.Tensor,
        d_shrunk: torch.Tensor,
    ) -> Gradients:
        """Gradients of A and B, given that of the projection [N, out] and that of A h [N, R]."""
        adapter = self.matrices.adapter
        if adapter is None:
            return []
        pairs = adapter.pairs(index, group)
        ranks = [len(pair.a) for pair in pairs]
        made = []
        for pair, d_a, s in zip(
            pairs,
            torch.split((d_shrunk.T @ h).float(), ranks),
            torch.split(shrunk, ranks),
            strict=True,
        ):
            made += [d_a, (s @ g[:, pair.rows]).float().mul_(pair.scale).T]
        return made


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
