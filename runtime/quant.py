"""Quantised matrices: one canonical form for every GGUF type, and the linear operators over it.

Canonical form: groups of 32 columns, w = scale * code + offset, with unsigned 4-bit codes (Q4_0,
Q4_1, Q4_K: exact) or signed 8-bit codes and no offset (Q5_0, Q8_0: exact; Q6_K, F16, F32: rounded
to 8 bits). Block layouts: ggml/src/ggml-common.h of llama.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from runtime.engine import F32
from runtime.gguf_file import GGUFTensor
from specs.errors import IntegrityError

GROUP = 32
READ_ROWS = 8192
"""Rows decoded at a time, which bounds what a vocabulary takes while it is read."""
PACK_ROWS = 64
"""Rows packed at a time: whole blocks of the packed form (16, 32 or 64 rows, by processor)."""


@dataclass(frozen=True)
class Codes:
    """A quantised [rows, columns] matrix."""

    bits: int
    """4 or 8."""
    codes: npt.NDArray[Any]
    """uint8 [rows, columns] of 0..15 for 4 bits, int8 [rows, columns] for 8."""
    scale: F32
    """float32 [rows, columns / 32]."""
    offset: F32 | None
    """float32 [rows, columns / 32]; None for 8 bits."""

    @staticmethod
    def concatenate(parts: list[Codes]) -> Codes:
        """Stack matrices of the same bits and columns by rows."""
        offsets = [p.offset for p in parts if p.offset is not None]
        return Codes(
            parts[0].bits,
            np.concatenate([p.codes for p in parts]),
            np.concatenate([p.scale for p in parts]),
            np.concatenate(offsets) if offsets else None,
        )

    def rows(self, order: npt.NDArray[np.intp]) -> Codes:
        """The same matrix with its rows in another order."""
        offset = None if self.offset is None else self.offset[order]
        return Codes(self.bits, self.codes[order], self.scale[order], offset)


def _half(blocks: npt.NDArray[np.uint8], at: int) -> F32:
    """The float16 at byte `at` of every block, as float32 [..., 1]."""
    return np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """[..., 16] bytes -> [..., 32] codes: low halves first, then high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def read_codes(tensor: GGUFTensor) -> Codes:
    """Bring a 2-D tensor of any supported type into the canonical form.

    Raises:
        IntegrityError: columns are not a multiple of 32, or a scale is not finite.
    """
    rows, columns = tensor.shape
    if columns % GROUP:
        raise IntegrityError(f"tensor `{tensor.name}` has {columns} columns, no multiple of 32")
    if rows <= READ_ROWS:
        return _read_codes(tensor)
    part = _read_codes(tensor.rows(0, 1))
    codes = np.empty((rows, columns), part.codes.dtype)
    scale = np.empty((rows, columns // GROUP), np.float32)
    offset = None if part.offset is None else np.empty_like(scale)
    for at in range(0, rows, READ_ROWS):
        strip = slice(at, at + READ_ROWS)
        part = _read_codes(tensor.rows(at, at + READ_ROWS))
        codes[strip], scale[strip] = part.codes, part.scale
        if offset is not None:
            offset[strip] = part.offset
    return Codes(part.bits, codes, scale, offset)


def _read_codes(tensor: GGUFTensor) -> Codes:
    rows = tensor.shape[0]
    if tensor.type in ("Q4_0", "Q4_1", "Q5_0", "Q8_0"):
        result = _read_blocks_of_32(tensor, rows)
    elif tensor.type == "Q4_K":
        result = _read_q4_k(tensor, rows)
    else:
        result = _round_to_8_bits(tensor.dequantized())
    if not np.isfinite(result.scale).all() or (
        result.offset is not None and not np.isfinite(result.offset).all()
    ):
        raise IntegrityError(f"tensor `{tensor.name}` holds NaN or infinity")
    return result


def _read_blocks_of_32(tensor: GGUFTensor, rows: int) -> Codes:
    size = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q8_0": 34}[tensor.type]
    blocks = np.asarray(tensor.data).reshape(rows, -1, size)
    scale = _half(blocks, 0)
    if tensor.type == "Q8_0":
        signed = np.ascontiguousarray(blocks[..., 2:]).view(np.int8)
        return Codes(8, signed.reshape(rows, -1), scale[..., 0], None)
    if tensor.type == "Q5_0":
        high = np.unpackbits(blocks[..., 2:6], axis=-1, bitorder="little")
        signed = (_nibbles(blocks[..., 6:]) | (high << 4)).astype(np.int8) - 16
        return Codes(8, signed.reshape(rows, -1), scale[..., 0], None)
    first = 4 if tensor.type == "Q4_1" else 2
    offset = _half(blocks, 2) if tensor.type == "Q4_1" else scale * -8.0
    codes = _nibbles(blocks[..., first:]).reshape(rows, -1)
    return Codes(4, codes, scale[..., 0], offset[..., 0])


def _read_q4_k(tensor: GGUFTensor, rows: int) -> Codes:
    """Blocks of 256: d, dmin, eight 6-bit scales and minima in 12 bytes, 128 bytes of nibbles."""
    blocks = np.asarray(tensor.data).reshape(rows, -1, 144)
    d, dmin = _half(blocks, 0), _half(blocks, 2)
    packed = blocks[..., 4:16].reshape(rows, -1, 3, 4)
    low, mins, high = packed[..., 0, :], packed[..., 1, :], packed[..., 2, :]
    scales = np.concatenate([low & 63, (high & 15) | ((low >> 2) & 48)], axis=-1)
    minima = np.concatenate([mins & 63, (high >> 4) | ((mins >> 2) & 48)], axis=-1)
    codes = _nibbles(blocks[..., 16:].reshape(rows, -1, 4, 32).reshape(rows, -1, 32))
    # _nibbles puts 32 low halves before 32 high ones here, which is the order of two groups
    return Codes(
        4,
        codes.reshape(rows, -1),
        (d * scales).reshape(rows, -1),
        -(dmin * minima).reshape(rows, -1),
    )


def _round_to_8_bits(weight: F32) -> Codes:
    rows, columns = weight.shape
    groups = weight.reshape(rows, columns // GROUP, GROUP)
    scale = np.abs(groups).max(axis=-1, keepdims=True) / 127.0
    codes = np.rint(np.divide(groups, scale, out=np.zeros_like(groups), where=scale > 0))
    return Codes(8, codes.astype(np.int8).reshape(rows, columns), scale[..., 0], None)


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
        half = codes.scale.astype(np.float16)  # exact wherever the file itself holds float16
        self.scale = move((half if (half == codes.scale).all() else codes.scale)[..., None])
        self.offset = None if codes.offset is None else move(codes.offset[..., None])

    def weight(self) -> torch.Tensor:
        """The dequantised matrix [rows, columns], freshly made."""
        codes = self.data
        if self.bits == 4:
            codes = torch.cat([codes & 15, codes >> 4], dim=-1)
        weight = codes.to(self.dtype).mul_(self.scale.to(self.dtype))
        if self.offset is not None:
            weight.add_(self.offset.to(self.dtype))
        return weight.reshape(self.shape)

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
