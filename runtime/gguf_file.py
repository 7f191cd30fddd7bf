"""Reading a GGUF file: metadata, tensors as quantised blocks, and the base's fingerprint.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, read through the `gguf` library.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType
from gguf.quants import dequantize

from runtime.engine import F32, ModelConfig
from specs.errors import IntegrityError, MbpmError
from specs.json_text import canonical_json

SUPPORTED_ARCHITECTURES = ("llama", "qwen2")
SUPPORTED_TYPES = ("F32", "F16", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q6_K", "Q8_0")


class _Reader(GGUFReader):  # type: ignore[misc]
    """GGUFReader that takes an array in one step.

    The library makes two numpy views for every element, which costs seconds on a vocabulary.
    """

    def __init__(self, path: Path) -> None:
        self.arrays: dict[int, list[str] | npt.NDArray[Any]] = {}
        super().__init__(path)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        head = bytes(self.data[orig_offs : orig_offs + 12])
        item_type, count = struct.unpack("<IQ", head)
        start = orig_offs + 12
        if count > len(self.data) - start:
            raise ValueError(f"an array claims {count} elements")
        scalar = self.gguf_scalar_to_np.get(GGUFValueType(item_type))
        if scalar is not None:
            values = self._get(start, scalar, count)
            if len(values) != count:
                raise ValueError("an array ends after the file does")
            self.arrays[orig_offs] = values
            size = int(values.nbytes)
        elif item_type == GGUFValueType.STRING:
            texts, size = self._strings(start, count)
            self.arrays[orig_offs] = texts
        else:
            raise ValueError("nested arrays are not supported")
        types = [GGUFValueType.ARRAY, GGUFValueType(item_type)]
        return 12 + size, [np.array([orig_offs])], [0], types

    def _strings(self, start: int, count: int) -> tuple[list[str], int]:
        buffer = memoryview(self.data)
        texts, position = [], start
        for _ in range(count):
            (length,) = struct.unpack_from("<Q", buffer, position)
            position += 8
            if length > len(buffer) - position:
                raise ValueError("a text ends after the file does")
            texts.append(str(buffer[position : position + length], "utf-8"))
            position += length
        return texts, position - start


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor; `data` is uint8 [rows, row bytes] for quantised types, the values otherwise."""

    name: str
    type: str
    shape: tuple[int, ...]
    """Outermost dimension first: (out_features, in_features) for a weight."""
    data: npt.NDArray[Any]

    def rows(self, start: int, end: int) -> GGUFTensor:
        """Some rows of a matrix, as a matrix of its own."""
        data = self.data[start:end]
        return GGUFTensor(self.name, self.type, (len(data), *self.shape[1:]), data)

    def dequantized(self) -> F32:
        """float32 of `shape`."""
        values = dequantize(self.data, GGMLQuantizationType[self.type])
        return np.array(values, dtype=np.float32).reshape(self.shape)


@dataclass(frozen=True)
class GGUFFile:
    """An opened file; tensors are views of a memory map."""

    path: Path
    metadata: dict[str, Any]
    """Key -> int, float, bool, str, list[str], or numpy array."""
    tensors: dict[str, GGUFTensor]
    pages: mmap.mmap
    """The memory map."""

    def let_go(self) -> None:
        """Give the pages read so far back to the system, which reads them again when needed."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.pages.madvise(mmap.MADV_DONTNEED)

    def get(self, key: str) -> Any:
        """A metadata value that must be there.

        Raises:
            IntegrityError: it is not.
        """
        if key not in self.metadata:
            raise IntegrityError(f"{self.path}: has no metadata `{key}`")
        return self.metadata[key]

    def tensor(self, name: str) -> GGUFTensor:
        """A tensor that must be there.

        Raises:
            IntegrityError: it is not.
        """
        if name not in self.tensors:
            raise IntegrityError(f"{self.path}: has no tensor `{name}`")
        return self.tensors[name]


@lru_cache(maxsize=4)
def _open(path: Path, size: int, mtime_ns: int) -> GGUFFile:
    try:
        reader = _Reader(path)
        metadata = {}
        for key, field in reader.fields.items():
            if field.types[0] == GGUFValueType.ARRAY:
                metadata[key] = reader.arrays[int(field.parts[field.data[0]][0])]
            else:
                metadata[key] = field.contents()
        tensors = {
            t.name: GGUFTensor(
                t.name, t.tensor_type.name, tuple(int(n) for n in reversed(t.shape)), t.data
            )
            for t in reader.tensors
        }
    except (
        ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, struct.error,
    ) as error:  # fmt: skip
        reason = str(error).strip("'\"") or type(error).__name__
        raise IntegrityError(
            f"{path}: is not a usable GGUF file ({reason})",
            hint="`mbpm base verify` tells whether it is damaged",
        ) from None
    for tensor in tensors.values():
        if tensor.type not in SUPPORTED_TYPES:
            raise MbpmError(
                f"{path}: tensor `{tensor.name}` has type {tensor.type}, and this runtime reads "
                f"{', '.join(SUPPORTED_TYPES)}"
            )
    return GGUFFile(path, metadata, tensors, reader.data.base)


def open_gguf(path: Path) -> GGUFFile:
    """Open a GGUF file; the same unchanged file is parsed once per process.

    Raises:
        IntegrityError: truncated, malformed, or not GGUF.
        MbpmError: a tensor type this runtime does not read.
    """
    stat = path.stat()
    return _open(path, stat.st_size, stat.st_mtime_ns)


def model_config(file: GGUFFile) -> ModelConfig:
    """The decoder's shape.

    Raises:
        IntegrityError: a value is missing or impossible.
        MbpmError: an architecture this runtime does not know.
    """
    arch = str(file.get("general.architecture"))
    if arch not in SUPPORTED_ARCHITECTURES:
        raise MbpmError(
            f"{file.path}: has architecture `{arch}`, and this runtime knows "
            f"{' and '.join(SUPPORTED_ARCHITECTURES)}"
        )

    def integer(key: str, most: int) -> int:
        value = file.get(f"{arch}.{key}")
        if not isinstance(value, int) or not 1 <= value <= most:
            raise IntegrityError(f"{file.path}: metadata `{arch}.{key}` is {value!r}")
        return value

    def number(key: str, default: object = None) -> float:
        value = file.metadata.get(f"{arch}.{key}", default)
        if not isinstance(value, (int, float)) or not 0 < value < 1e12:
            raise IntegrityError(f"{file.path}: metadata `{arch}.{key}` is {value!r}")
        return float(value)

    heads, hidden = integer("attention.head_count", 1024), integer("embedding_length", 1 << 16)
    kv_heads = integer("attention.head_count_kv", 1024)
    if hidden % heads or heads % kv_heads:
        raise IntegrityError(f"{file.path}: {heads} heads do not fit width {hidden}")
    for key in (f"{arch}.rope.scaling.type", f"{arch}.rope.scaling.factor"):
        if file.metadata.get(key, "none") not in ("none", 1.0):
            raise MbpmError(f"{file.path}: uses `{key}`, which this runtime does not support")
    rotated = file.metadata.get(f"{arch}.rope.dimension_count", hidden // heads)
    if rotated != hidden // heads:
        raise MbpmError(f"{file.path}: rotates {rotated} of {hidden // heads} dimensions of a head")
    return ModelConfig(
        architecture=arch,
        layers=integer("block_count", 1024),
        hidden_size=hidden,
        ffn_size=integer("feed_forward_length", 1 << 20),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        vocab_size=file.tensor("token_embd.weight").shape[0],
        context_length=integer("context_length", 1 << 24),
        rope_theta=number("rope.freq_base", 10000.0),
        norm_eps=number("attention.layer_norm_rms_epsilon"),
        qkv_bias=arch == "qwen2",
    )


def fingerprint(file: GGUFFile) -> str:
    """What a pack depends on: SHA-256 over tensors, tokenizer and chat format, not over the file.

    Two files that differ only in unrelated metadata or tensor order have the same fingerprint.
    """
    tensors = [
        [
            t.name,
            t.type,
            list(t.shape),
            hashlib.sha256(np.ascontiguousarray(t.data).data).hexdigest(),
        ]
        for _, t in sorted(file.tensors.items())
    ]
    shape = {
        k: v
        for k, v in file.metadata.items()
        if k.startswith(f"{file.get('general.architecture')}.") or k == "general.architecture"
    }
    tokenizer = {
        k: v.tolist() if isinstance(v, np.ndarray) else v
        for k, v in file.metadata.items()
        if k.startswith("tokenizer.")
    }
    document = {"tensors": tensors, "model": shape, "tokenizer": tokenizer}
    return hashlib.sha256(canonical_json(document)).hexdigest()
