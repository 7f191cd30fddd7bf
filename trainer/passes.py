"""What a layer does between its matrix products: passes over activations.

PyTorch makes one pass over memory per operation, which on a CPU takes longer than the products. The
native extension makes one per line below, and holds the interpreter's lock only while it is called;
`TorchPasses` is what they mean, and what runs on CUDA and where the extension was not built.

Shapes: N tokens, D numbers each. "Low" is the type that matrices are multiplied in, bfloat16 or
float32; everything else is float32. An argument that is written to says so.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from runtime.native import instruction_set, why_not
from runtime.quant import DequantLinear

if TYPE_CHECKING:
    from runtime.native._native import Training

EXACT_ROWS = 16
"""Rows whose logits are float32 at once."""


class TorchPasses:
    """The passes as PyTorch's operations."""

    def dequantise(self, linear: DequantLinear, out: torch.Tensor) -> None:
        """Write a matrix into low `out` [rows, columns]."""
        linear.weight(out)

    def norm(
        self,
        x: torch.Tensor,
        more: torch.Tensor | None,
        weight: torch.Tensor,
        eps: float,
        h: torch.Tensor,
        kept: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """RMS norm of x + more, x float32 and `more` low [N, D].

        Args:
            h: low [N, D], which becomes the normed sum.
            kept: low [N, D], which becomes the sum.

        Returns:
            The sum, float32 [N, D], and 1 / its root mean square, float32 [N, 1].
        """
        y = x if more is None else x + more
        square = torch.linalg.vector_norm(y, dim=-1, keepdim=True).square_().div_(y.shape[-1])
        inverse = square.add_(eps).rsqrt_()
        h.copy_((y * inverse).mul_(weight))
        if kept is not None:
            kept.copy_(y)
        return y, inverse

    def normed(
        self, kept: torch.Tensor, inverse: torch.Tensor, weight: torch.Tensor, h: torch.Tensor
    ) -> None:
        """Write to `h` what `norm` did, from what it kept."""
        h.copy_((kept * inverse).mul_(weight))

    def norm_backward(
        self,
        dh: torch.Tensor,
        kept: torch.Tensor,
        inverse: torch.Tensor,
        weight: torch.Tensor,
        grad: torch.Tensor,
        low: torch.Tensor | None,
    ) -> torch.Tensor:
        """float32 [N, D] `grad` and the gradient of the sum, where its norm has the gradient `dh`.

        Args:
            low: [N, D], which becomes the result too.
        """
        scaled = dh * weight
        normed = kept * inverse
        along = torch.linalg.vecdot(scaled, normed)[:, None] / kept.shape[-1]
        made = scaled.sub_(normed.mul_(along)).mul_(inverse).add_(grad)
        if low is not None:
            low.copy_(made)
        return made

    def rotate(
        self,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        cos: torch.Tensor,
        sin: torch.Tensor,
        heads: int,
        turn: float,
    ) -> None:
        """Add a bias to low `x` [N, W] in place, and turn its first heads by the angles, or by
        `turn` = -1 back.

        Args:
            bias: float32 [W].
            cos, sin: float32 [N, d / 2] of rotary angles.
        """
        half = cos.shape[1]
        if bias is not None:
            x += bias
        turned = x.view(len(x), -1, 2 * half)[:, :heads]
        first, second = turned.to(torch.float32, copy=True).chunk(2, dim=-1)
        c, s = cos[:, None], sin[:, None] * turn
        turned[..., :half] = first * c - second * s
        turned[..., half:] = second * c + first * s

    def swiglu(self, gate_up: torch.Tensor, out: torch.Tensor) -> None:
        """Write silu(gate) * up to low `out` [N, F], from low [N, 2 F]."""
        gate, up = gate_up.chunk(2, dim=-1)
        torch.mul(F.silu(gate), up, out=out)

    def swiglu_backward(
        self, grad: torch.Tensor, gate_up: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradient of `gate_up`, given that of silu(gate) * up, and the latter again."""
        gate, up = gate_up.chunk(2, dim=-1)
        silu = F.silu(gate)
        made = torch.empty_like(gate_up)
        torch.mul(grad, silu, out=made[:, gate.shape[1] :])
        made[:, : gate.shape[1]] = torch.ops.aten.silu_backward(grad * up, gate)
        return made, silu.mul_(up)

    def softmax(self, scores: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        """Softmax of scale * scores + mask in the place of low `scores` [B, H, T, S].

        Args:
            mask: low [B or 1, 1, T, S], 0 or -infinity.
        """
        return torch.softmax(scores.mul_(scale).add_(mask), dim=-1)

    def softmax_backward(self, grad: torch.Tensor, p: torch.Tensor, scale: float) -> torch.Tensor:
        """The scores' gradient in the place of `grad`, that of p = softmax(scale * scores)."""
        return torch._softmax_backward_data(grad, p, -1, p.dtype).mul_(scale)

    def cross_entropy(
        self, logits: torch.Tensor, targets: torch.Tensor, slopes: bool
    ) -> torch.Tensor:
        """float32 losses [n] of low logits [n, V], which become their gradients where wanted."""
        losses = []
        for at in range(0, len(logits), EXACT_ROWS):
            part, target = logits[at : at + EXACT_ROWS], targets[at : at + EXACT_ROWS, None]
            exact = part.float()
            normaliser = exact.logsumexp(dim=-1, keepdim=True)
            losses.append((normaliser - exact.gather(1, target))[:, 0])
            if slopes:
                slope = exact.sub_(normaliser).exp_()
                slope.scatter_add_(1, target, torch.full_like(normaliser, -1.0))
                part.copy_(slope)
        return torch.cat(losses)


class NativePasses(TorchPasses):
    """The passes as the native extension makes them, on the calling thread."""

    def __init__(self, native: Training) -> None:
        self._native = native

    def dequantise(self, linear: DequantLinear, out: torch.Tensor) -> None:
        self._native.dequantise(linear.data, linear.scale, linear.offset, out)

    def norm(
        self,
        x: torch.Tensor,
        more: torch.Tensor | None,
        weight: torch.Tensor,
        eps: float,
        h: torch.Tensor,
        kept: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y = x if more is None else torch.empty_like(x)
        inverse = x.new_empty(len(x), 1)
        self._native.norm(x, more, weight, eps, y, inverse, h, kept)
        return y, inverse

    def normed(
        self, kept: torch.Tensor, inverse: torch.Tensor, weight: torch.Tensor, h: torch.Tensor
    ) -> None:
        self._native.normed(kept, inverse, weight, h)

    def norm_backward(
        self,
        dh: torch.Tensor,
        kept: torch.Tensor,
        inverse: torch.Tensor,
        weight: torch.Tensor,
        grad: torch.Tensor,
        low: torch.Tensor | None,
    ) -> torch.Tensor:
        made = torch.empty_like(grad)
        self._native.norm_backward(dh, kept, inverse, weight, grad, made, low)
        return made

    def rotate(
        self,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        cos: torch.Tensor,
        sin: torch.Tensor,
        heads: int,
        turn: float,
    ) -> None:
        self._native.rotate(x, bias, cos, sin, heads, 2 * cos.shape[1], turn)

    def swiglu(self, gate_up: torch.Tensor, out: torch.Tensor) -> None:
        self._native.swiglu(gate_up, out)

    def swiglu_backward(
        self, grad: torch.Tensor, gate_up: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        made = torch.empty_like(gate_up)
        active = gate_up.new_empty(grad.shape)
        self._native.swiglu_backward(grad, gate_up, made, active)
        return made, active

    def softmax(self, scores: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        self._native.softmax(scores, mask, scale)
        return scores

    def softmax_backward(self, grad: torch.Tensor, p: torch.Tensor, scale: float) -> torch.Tensor:
        self._native.softmax_backward(grad, p, scale)
        return grad

    def cross_entropy(
        self, logits: torch.Tensor, targets: torch.Tensor, slopes: bool
    ) -> torch.Tensor:
        losses = torch.empty(len(logits))
        self._native.cross_entropy(logits, targets, losses, slopes)
        return losses


@lru_cache
def passes_on(device_type: str) -> TorchPasses:
    """The quickest passes for a kind of device.

    Raises:
        UsageError: `MBPM_ISA` names an instruction set that is not here.
    """
    if device_type != "cpu" or why_not() is not None:
        return TorchPasses()
    from runtime.native._native import Training

    return NativePasses(Training(instruction_set()))
