"""Linear operators over quantised matrices (runtime.codes), for PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from runtime.codes import GROUP, Codes
from runtime.engine import F32

PACK_ROWS = 64
"""Rows packed at a time: whole blocks of the packed form (16, 32 or 64 rows, by processor)."""


class FloatLinear:
    """The dequantised weight itself: the float32 reference, not what users run."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight  # [rows, columns]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight)

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes


class Int4PackLinear:
    """PyTorch's packed int4 operator on the CPU: bfloat16 activations and scales.

    An 8-bit code is two 4-bit planes, 16 * high + low, laid side by side along the columns, so the
    same operator serves both and the split costs no precision.
    """

    def __init__(self, codes: Codes) -> None:
        self.two_planes = codes.bits == 8
        self.rows, columns = codes.codes.shape
        wanted = self.rows + -self.rows % 16  # the operator wants whole blocks of 16 rows
        columns *= 1 + self.two_planes
        self.packed = torch.empty(wanted, columns // 2, dtype=torch.uint8)
        self.scale_and_zero = torch.zeros(columns // GROUP, wanted, 2, dtype=torch.bfloat16)
        # The packed form is one block of rows after another, so strips pack as the whole would,
        # and no matrix ever stands in memory as 32-bit integers.
        for start in range(0, wanted, PACK_ROWS):
            self._pack(codes, start, min(start + PACK_ROWS, wanted))

    def _pack(self, codes: Codes, start: int, end: int) -> None:
        part, scale = codes.codes[start:end], codes.scale[start:end]
        if self.two_planes:
            part = np.concatenate([(part >> 4) + 8, part & 15], axis=1)
            zero = np.concatenate([np.zeros_like(scale), 8.0 * scale], axis=1)
            scale = np.concatenate([16.0 * scale, scale], axis=1)
        else:
            assert codes.offset is not None
            # the operator computes (code - 8) * scale + zero
            zero = codes.offset[start:end] + 8.0 * scale
        planes = torch.zeros(end - start, part.shape[1], dtype=torch.int32)
        planes[: len(part)] = torch.from_numpy(part)
        self.packed[start:end] = torch.ops.aten._convert_weight_to_int4pack_for_cpu(planes, 1)
        pairs = torch.from_numpy(np.stack([scale.T, zero.T], axis=-1))  # [groups, rows, 2]
        self.scale_and_zero[:, start : start + len(part)] = pairs

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
        if self.two_planes:
            flat = torch.cat([flat, flat], dim=1)
        y: torch.Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            flat, self.packed, GROUP, self.scale_and_zero
        )
        return y[:, : self.rows].to(x.dtype).reshape(*x.shape[:-1], self.rows)

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + self.scale_and_zero.nbytes


class DequantLinear:
    """Codes stay packed; one matrix at a time is dequantised, used and dropped.

    Works on every device and lets gradients flow to the input: the trainer's and the GPU's form.
    """

    def __init__(self, codes: Codes, device: torch.device, dtype: torch.dtype) -> None:
        rows, columns = codes.codes.shape
        self.shape, self.bits, self.dtype = (rows, columns), codes.bits, dtype
        if codes.bits == 4:
            groups = codes.codes.reshape(rows, -1, 2, GROUP // 2)
            data = groups[:, :, 0] | (groups[:, :, 1] << 4)  # [rows, groups, 16]
        else:
            data = codes.codes.reshape(rows, -1, GROUP)

        def move(array: npt.NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        self.data = move(data)

        def short(values: F32) -> torch.Tensor:
            half = values.astype(np.float16)  # exact wherever the file itself holds float16
            return move((half if (half == values).all() else values)[..., None])

        self.scale = short(codes.scale)
        self.offset = None if codes.offset is None else short(codes.offset)

    def weight(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """The dequantised matrix [rows, columns], freshly made, or written into `out`."""
        rows, columns = self.shape
        if out is None:
            out = torch.empty(self.shape, dtype=self.dtype, device=self.data.device)
        weight = out.view(rows, columns // GROUP, GROUP)
        if self.bits == 4:
            half = GROUP // 2
            weight[..., :half].copy_(self.data & 15)
            weight[..., half:].copy_(self.data >> 4)
        else:
            weight.copy_(self.data)
        weight.mul_(self.scale.to(self.dtype))
        if self.offset is not None:
            weight.add_(self.offset.to(self.dtype))
        return out

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            result: torch.Tensor = _DequantMatmul.apply(x, self)  # type: ignore[no-untyped-call]
            return result
        return F.linear(x.to(self.dtype), self.weight()).to(x.dtype)

    @property
    def nbytes(self) -> int:
        offset = 0 if self.offset is None else self.offset.nbytes
        return self.data.nbytes + self.scale.nbytes + offset


class _DequantMatmul(torch.autograd.Function):
    """y = x W^T where W is frozen: the backward pass dequantises again instead of keeping W."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, linear: DequantLinear) -> torch.Tensor:
        ctx.linear = linear
        return F.linear(x.to(linear.dtype), linear.weight()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        linear: DequantLinear = ctx.linear
        if linear.dtype is not torch.float16:
            return (grad.to(linear.dtype) @ linear.weight()).to(grad.dtype), None
        # a mean over thousands of tokens leaves gradients below float16's smallest step
        largest = grad.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
        product = (grad / largest).to(linear.dtype) @ linear.weight()
        return product.to(grad.dtype) * largest, None


Linear = FloatLinear | Int4PackLinear | DequantLinear
