"""Quantised matrices: one canonical form for every GGUF type.

Canonical form: groups of 32 columns, w = scale * code + offset, with unsigned 4-bit codes (Q4_0,
Q4_1, Q4_K: exact) or signed 8-bit codes and no offset (Q5_0, Q8_0: exact; Q6_K, F16, F32: rounded
to 8 bits). Block layouts: ggml/src/ggml-common.h of llama.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.engine import F32
from runtime.gguf_file import GGUFTensor
from specs.errors import IntegrityError

GROUP = 32
READ_ROWS = 8192
"""Rows decoded at a time, which bounds what a vocabulary takes while it is read."""


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
    """float32 [rows, columns / 32]; None for 8 bits and with a codebook."""
    codebook: tuple[int, ...] | None = None
    """16 values of -127..127 that 4-bit codes stand for: w = scale * codebook[code]."""

    @staticmethod
    def concatenate(parts: list[Codes]) -> Codes:
        """Stack matrices of the same bits, columns and codebook by rows."""
        offsets = [p.offset for p in parts if p.offset is not None]
        return Codes(
            parts[0].bits,
            np.concatenate([p.codes for p in parts]),
            np.concatenate([p.scale for p in parts]),
            np.concatenate(offsets) if offsets else None,
            parts[0].codebook,
        )

    def rows(self, order: npt.NDArray[np.intp]) -> Codes:
        """The same matrix with its rows in another order."""
        offset = None if self.offset is None else self.offset[order]
        return Codes(self.bits, self.codes[order], self.scale[order], offset, self.codebook)

    def weight(self) -> F32:
        """The dequantised matrix, float32 [rows, columns]."""
        values = self.codes.astype(np.float32)
        if self.codebook is not None:
            values = np.array(self.codebook, np.float32)[self.codes]
        groups = values.reshape(*self.scale.shape, GROUP)
        groups *= self.scale[..., None]
        if self.offset is not None:
            groups += self.offset[..., None]
        return groups.reshape(self.codes.shape)


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
