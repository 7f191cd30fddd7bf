"""Writing GGUF files: metadata and tensors, some quantised anew."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter
from gguf.quants import quantize

from runtime.engine import F32, ModelConfig
from runtime.gguf_file import GGUFTensor
from runtime.modules import row_order

FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8}
"""`general.file_type` (llama.cpp's llama_ftype) of files whose matrices are mostly of a type."""


_ITEM_TYPES = {
    "i4": GGUFValueType.INT32,
    "u4": GGUFValueType.UINT32,
    "i8": GGUFValueType.INT64,
    "u8": GGUFValueType.UINT64,
    "f4": GGUFValueType.FLOAT32,
    "b1": GGUFValueType.BOOL,
}
"""numpy kind and bytes -> type of an array's elements."""


def quantized(name: str, values: F32, kind: str) -> GGUFTensor:
    """A matrix or vector in a GGUF type the `gguf` library can write; vectors stay float32."""
    if values.ndim == 1 or kind == "F32":
        return GGUFTensor(name, "F32", values.shape, np.ascontiguousarray(values, np.float32))
    data = quantize(np.ascontiguousarray(values, np.float32), GGMLQuantizationType[kind])
    return GGUFTensor(name, kind, values.shape, data)


def to_file_rows(name: str, config: ModelConfig) -> npt.NDArray[np.intp] | None:
    """The order that `runtime.modules.row_order` undoes: `in the file = as computed[order]`."""
    order = row_order(config, name)
    return None if order is None else np.argsort(order)


def write_gguf(
    file: Path, architecture: str, metadata: Mapping[str, Any], tensors: Iterable[GGUFTensor]
) -> None:
    """Write a file whole and rename it: a kill leaves none, or the old one.

    Args:
        metadata: as `runtime.gguf_file` reads it; whole numbers are written with 32 bits, which is
            what llama.cpp expects of every key of the supported architectures.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        writer = GGUFWriter(temporary, architecture)
        for key, value in metadata.items():
            if not key.startswith("GGUF.") and key != "general.architecture":
                _add(writer, key, value)
        for tensor in tensors:
            kind = GGMLQuantizationType[tensor.type]
            writer.add_tensor(tensor.name, np.ascontiguousarray(tensor.data), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        add = writer.add_uint32 if 0 <= value < 1 << 32 else writer.add_int64
        add(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, np.ndarray):
        item = _ITEM_TYPES.get(value.dtype.kind + str(value.dtype.itemsize))
        writer.add_key_value(key, value.tolist(), GGUFValueType.ARRAY, sub_type=item)
    else:
        writer.add_array(key, list(value))
