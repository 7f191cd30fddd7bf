"""From the tensors of a GGUF file to tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.codes import Codes, read_codes
from runtime.engine import F32, ModelConfig
from runtime.gguf_file import GGUFFile
from runtime.modules import PROJECTIONS, row_order
from runtime.native import _native
from specs.errors import IntegrityError


@dataclass(frozen=True)
class Tiled:
    """A matrix as the packed file holds it."""

    entry: dict[str, Any]
    """`name`, `format`, `rows`, `columns`, `codebook`."""
    tiles: npt.NDArray[np.uint8]


def tile(name: str, codes: Codes) -> Tiled:
    """Pack codes; the format follows from what they hold.

    Raises:
        IntegrityError: a scale does not fit float16.
    """
    rows, columns = codes.codes.shape
    offset: F32 | None = None
    if codes.bits == 8:
        wide = bool(codes.codes.min() < -16 or codes.codes.max() > 15)
        kind = "q8" if wide else "q5"
    elif codes.codebook is not None:
        kind = "q4c"
    else:
        assert codes.offset is not None
        symmetric = np.array_equal(codes.offset, codes.scale * np.float32(-8))
        kind = "q4s" if symmetric else "q4"
        offset = None if symmetric else np.ascontiguousarray(codes.offset, dtype=np.float32)
    scale = np.ascontiguousarray(codes.scale, dtype=np.float32)
    try:
        tiles = _native.pack(kind, np.ascontiguousarray(codes.codes).view(np.uint8), scale, offset)
    except OverflowError as error:
        raise IntegrityError(f"tensor `{name}`: {error}") from None
    book = [] if codes.codebook is None else list(codes.codebook)
    entry = {"name": name, "format": kind, "rows": rows, "columns": columns, "codebook": book}
    return Tiled(entry, tiles)


def matrices(file: GGUFFile, config: ModelConfig, precision: str) -> Iterator[Tiled]:
    """Every matrix in the order a token needs them, the embedding last.

    Args:
        precision: one of `runtime.native.packed.PRECISIONS`.
    """
    rounded: Mapping[str, Codes] = {}
    if precision == "int4":
        from runtime.native.rounding_text import own_samples
        from runtime.requantise import requantise

        rounded = requantise(file, own_samples(file.path.parent))
    names = [
        f"blk.{layer}.{tensor}.weight"
        for layer in range(config.layers)
        for _, tensor in PROJECTIONS.values()
    ]
    names += [n for n in ("output.weight", "token_embd.weight") if n in file.tensors]
    for name in names:
        codes = rounded[name] if name in rounded else read_codes(file.tensor(name))
        order = row_order(config, name)
        yield tile(name, codes if order is None else codes.rows(order))


def vectors(file: GGUFFile, config: ModelConfig) -> Iterator[tuple[str, F32]]:
    """Norms and biases.

    Raises:
        IntegrityError: one holds NaN or infinity.
    """
    names = ["output_norm.weight"]
    for layer in range(config.layers):
        kinds = ["attn_norm.weight", "ffn_norm.weight"]
        if config.qkv_bias:
            kinds += [f"attn_{x}.bias" for x in "qkv"]
        names += [f"blk.{layer}.{kind}" for kind in kinds]
    for name in names:
        values = file.tensor(name).dequantized().reshape(-1)
        if not np.isfinite(values).all():
            raise IntegrityError(f"{file.path}: tensor `{name}` holds NaN or infinity")
        yield name, values
