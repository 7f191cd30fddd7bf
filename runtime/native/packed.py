"""The packed weights of a base: a file beside `weights.gguf`, made once and mapped ever after.

Layout in README.md of this folder. Nothing in it depends on the processor.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from runtime.engine import ModelConfig
from runtime.kept_file import (
    HEAD,
    PAGE,
    making,
    only_reads,
    page_up,
    private_place,
    read_directory,
    understood,
    write_head,
)
from runtime.modules import tensor_shapes
from specs.errors import DoesNotFitError, IntegrityError, disk_full
from specs.file_names import WEIGHTS_FILE

if TYPE_CHECKING:
    from runtime.gguf_file import GGUFFile

TILE_ROWS, TILE_COLUMNS = 16, 32
TILE_BYTES = {"q4": 320, "q4s": 288, "q4c": 288, "q5": 352, "q8": 544}
"""Format -> bytes of 16 rows x 32 columns."""

PRECISIONS = {"packed": 1, "int4": 1}
"""`packed`: the file's own; `int4`: rounded to 4 bits, all but the most sensitive matrices. Each
with the number of the way it is made: a file made another way is made again."""

Bytes = npt.NDArray[np.uint8]
Say = Callable[[str], None]
Matrix = tuple[str, int, int, int, list[int]]
"""Format, rows, columns, offset, codebook or nothing."""


@dataclass(frozen=True)
class Packed:
    """A mapped file and what its directory says."""

    bytes: Bytes
    config: ModelConfig
    matrices: dict[str, Matrix]
    """By GGUF name; offsets into `bytes`."""
    vectors: dict[str, int]
    """GGUF name -> offset into `bytes`."""


def packed_file(base_dir: Path, precision: str) -> Path:
    """Where the packed weights of a base stand."""
    return base_dir / ("packed.bin" if precision == "packed" else f"packed-{precision}.bin")


def matrix_bytes(kind: str, rows: int, columns: int) -> int:
    """Bytes that a matrix of a format takes."""
    return -(-rows // TILE_ROWS) * (columns // TILE_COLUMNS) * TILE_BYTES[kind]


def open_packed(base_dir: Path, fingerprint: str, precision: str, say: Say) -> Packed:
    """Map the packed weights of a base; make them first where they are not there, of another
    layout or base, or damaged. In a folder that only reads they last as long as this process.

    Args:
        say: told in words when weights are prepared, which takes seconds.

    Raises:
        IntegrityError, MbpmError: `weights.gguf` cannot be used.
        DoesNotFitError: the disk is full.
        OSError: the file is there and cannot be read, or cannot be written.
    """
    file = packed_file(base_dir, precision)
    words, once = "preparing the weights for this engine", ", once"
    try:
        with file.open("rb") as stream:
            return _map(stream, file, fingerprint, precision)
    except FileNotFoundError:
        words += " in 4 bits, which takes minutes" if precision == "int4" else ""
    except IntegrityError as error:
        words, once = f"{error.message}; {words} again", ""
    return _make(file, fingerprint, precision, words, once, say)


def _make(file: Path, fingerprint: str, precision: str, words: str, once: str, say: Say) -> Packed:
    from runtime.gguf_file import open_gguf

    folder = file.parent
    gguf = open_gguf(folder / WEIGHTS_FILE)
    try:
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(making(file))
            except OSError as error:
                if not only_reads(error):
                    raise
                stream = stack.enter_context(private_place())
                refusal = (error.strerror or "").lower()
                say(f"{words}, for this command alone: {folder} takes no files ({refusal})")
                _write(stream, gguf, fingerprint, precision)
                stream.flush()
                stream.seek(0)
                return _map(stream, file, fingerprint, precision)
            say(words + once)
            _write(stream, gguf, fingerprint, precision)
        with file.open("rb") as stream:
            return _map(stream, file, fingerprint, precision)
    except OSError as error:
        if not disk_full(error):
            error.filename = error.filename or str(file)
            raise
        raise DoesNotFitError(
            f"{file}: cannot be written ({error.strerror})",
            hint="free some disk, or use `--engine torch`, which needs no such file",
        ) from None


def _map(stream: BinaryIO, file: Path, fingerprint: str, precision: str) -> Packed:
    directory, start = read_directory(stream, file)
    with understood(file):
        if (directory["fingerprint"], directory["precision"]) != (fingerprint, precision):
            raise IntegrityError(f"{file}: was made from other weights")
        if directory.get("way", 1) != PRECISIONS[precision]:
            raise IntegrityError(f"{file}: was made by another version")
        config, matrices, vectors = _checked(directory, start)
    try:
        pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from None
        raise
    return Packed(np.frombuffer(pages, dtype=np.uint8), config, matrices, vectors)


def _checked(
    directory: dict[str, Any], start: int
) -> tuple[ModelConfig, dict[str, Matrix], dict[str, int]]:
    """What a directory says, where it has all that a decoder of its shape needs, inside the file.

    Raises:
        ValueError, LookupError, TypeError: it has not.
    """
    config, size = ModelConfig(**directory["config"]), directory["size"]
    for field in fields(config):
        value: Any = getattr(config, field.name)
        if not _possible(value, str(field.type)):
            raise ValueError(f"`{field.name}` is {value!r}")
    found = {m["name"]: m for m in directory["matrices"]}
    if config.layers > len(found):
        raise ValueError(f"{config.layers:,} layers of {len(found):,} matrices")
    shapes = tensor_shapes(config)
    if "output.weight" in found:
        shapes["output.weight"] = shapes["token_embd.weight"]
    matrices, vectors = {}, {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            at, unit, length = directory["vectors"][name], 4, 4 * shape[0]
            vectors[name] = start + at
        else:
            rows, columns = shape
            entry = found[name]
            kind, at, unit, book = entry["format"], entry["at"], PAGE, entry["codebook"]
            length = matrix_bytes(kind, rows, columns)
            matrices[name] = (kind, rows, columns, start + at, book)
            if (entry["rows"], entry["columns"], len(book)) != (
                rows, columns, 16 if kind == "q4c" else 0,
            ) or not all(type(v) is int and -128 < v < 128 for v in book):  # fmt: skip
                raise ValueError(f"`{name}` has another shape or codebook")
        if type(at) is not int or at < 0 or at % unit or at + length > size:
            raise ValueError(f"`{name}` lies outside of the data")
    return config, matrices, vectors


def _possible(value: Any, kind: str) -> bool:
    """Whether a value is of a type, and a number of a size that a decoder can have."""
    if type(value).__name__ != kind:
        return False
    return kind not in ("int", "float") or 0 < value < 1 << 31


def _write(stream: BinaryIO, gguf: GGUFFile, fingerprint: str, precision: str) -> None:
    from runtime.gguf_file import model_config
    from runtime.modules import check_weights
    from runtime.native.convert import matrices, vectors

    config = model_config(gguf)
    check_weights(gguf, config)
    directory: dict[str, Any] = {
        "fingerprint": fingerprint,
        "precision": precision,
        "way": PRECISIONS[precision],
        "config": asdict(config),
        "matrices": [],
        "vectors": {},
        "size": 0,
        "sha256": "0" * 64,
    }
    # how long the directory gets is known when the shapes are; a page for every eight is plenty
    start = page_up(HEAD.size + 4096 + 256 * len(gguf.tensors))
    stream.seek(start)
    digest, position = hashlib.sha256(), 0

    def add(data: npt.NDArray[Any]) -> int:
        nonlocal position
        at = position
        for piece in (data.data, bytes(page_up(data.nbytes) - data.nbytes)):
            stream.write(piece)
            digest.update(piece)
        position += page_up(data.nbytes)
        return at

    found = list(vectors(gguf, config))
    at = add(np.concatenate([values for _, values in found]))
    for name, values in found:
        directory["vectors"][name] = at
        at += values.nbytes
    for matrix in matrices(gguf, config, precision):
        directory["matrices"].append({**matrix.entry, "at": add(matrix.tiles)})
        gguf.let_go()
    directory |= {"size": position, "sha256": digest.hexdigest()}
    write_head(stream, directory, start)
