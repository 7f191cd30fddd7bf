"""Reading a safetensors header without trusting it.

The rules of the format (https://github.com/huggingface/safetensors, "Format") checked one by one
before anything is allocated: header length against a cap and the file, no duplicate names, every
offset in range, no gap, no overlap, size = shape x dtype.
"""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from specs.errors import IntegrityError
from specs.json_text import load_json

MAX_HEADER_BYTES = 4 * 1024 * 1024
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1}
_NAME = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a header; `start` and `end` are byte offsets into the file's data part."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """A checked header."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int
    """Offset of the data part in the file."""


def read_header(file: Path) -> Header:
    """Check and return the header of a safetensors file.

    Raises:
        IntegrityError: naming the file and the rule it breaks.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise IntegrityError(f"{file}: is too short to be a safetensors file ({size} bytes)")
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER_BYTES:
            raise IntegrityError(
                f"{file}: header of {length:,} bytes, more than the {MAX_HEADER_BYTES:,} accepted"
            )
        if 8 + length > size:
            raise IntegrityError(f"{file}: is truncated (header ends after the file does)")
        raw = stream.read(length)
    return _check(raw, size - 8 - length, str(file))


def _check(raw: bytes, data_size: int, where: str) -> Header:
    value = load_json(raw, where)
    if not isinstance(value, dict):
        raise IntegrityError(f"{where}: header is not a JSON object")
    metadata = value.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise IntegrityError(f"{where}: `__metadata__` must map names to text")
    tensors = {name: _tensor(name, entry, data_size, where) for name, entry in value.items()}
    position = 0
    for info in sorted(tensors.values(), key=lambda t: (t.start, t.end)):
        if info.start < position:
            raise IntegrityError(f"{where}: tensor `{info.name}` overlaps the one before it")
        if info.start > position:
            raise IntegrityError(f"{where}: there is a gap before tensor `{info.name}`")
        position = info.end
    if position != data_size:
        raise IntegrityError(
            f"{where}: tensors take {position:,} bytes and the file holds {data_size:,}"
        )
    return Header(tensors, metadata, 8 + len(raw))


def _tensor(name: str, entry: object, data_size: int, where: str) -> TensorInfo:
    if not _NAME.fullmatch(name):
        raise IntegrityError(f"{where}: {name[:100]!r} is not an acceptable tensor name")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise IntegrityError(f"{where}: tensor `{name}` needs dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise IntegrityError(f"{where}: tensor `{name}` has unsupported dtype {str(dtype)[:20]!r}")
    if not _naturals(shape) or len(shape) > 8:
        raise IntegrityError(f"{where}: tensor `{name}` has a malformed shape")
    if not _naturals(offsets) or len(offsets) != 2:
        raise IntegrityError(f"{where}: tensor `{name}` has malformed offsets")
    start, end = offsets
    if not 0 <= start <= end <= data_size:
        raise IntegrityError(f"{where}: tensor `{name}` has offsets outside the file")
    if end - start != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise IntegrityError(f"{where}: tensor `{name}` has {end - start} bytes, not its shape's")
    return TensorInfo(name, dtype, tuple(shape), start, end)


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 48 for n in value
    )


def with_sorted_metadata(raw: bytes) -> bytes:
    """A safetensors file of ours with its metadata in the order of their names.

    The safetensors library writes them in an order that changes from run to run, and what is made
    twice from the same must have the same digest.
    """
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]
