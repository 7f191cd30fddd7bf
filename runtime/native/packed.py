"""The packed weights of a base: a file beside `weights.gguf`, made once and mapped ever after.

Layout in README.md of this folder. Nothing in it depends on the processor.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from runtime.engine import ModelConfig
from specs.errors import DoesNotFitError, IntegrityError

MAGIC = b"MBPMPACK"
LAYOUT = 1
PAGE = 4096
HEAD = struct.Struct("<8sII32s")
MAX_DIRECTORY = 16 * 1024 * 1024
TILE = 16
TILE_BYTES = {"q4": 320, "q4s": 288, "q4c": 288, "q5": 352, "q8": 544}
"""Format -> bytes of 16 rows x 32 columns."""

PRECISIONS = ("packed", "int4")
"""`packed`: the file's own; `int4`: rounded to 4 bits, all but the most sensitive matrices."""

Bytes = npt.NDArray[np.uint8]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Packed:
    """A mapped file and what its directory says."""

    bytes: Bytes
    config: ModelConfig
    matrices: dict[str, tuple[str, int, int, int, list[int]]]
    """GGUF name -> format, rows, columns, offset into `bytes`, codebook or nothing."""
    vectors: dict[str, int]
    """GGUF name -> offset into `bytes`."""


def packed_file(base_dir: Path, precision: str) -> Path:
    """Where the packed weights of a base stand."""
    return base_dir / ("packed.bin" if precision == "packed" else f"packed-{precision}.bin")


def open_packed(base_dir: Path, fingerprint: str, precision: str, say: Say) -> Packed:
    """Map the packed weights of a base; make them first where they are not there, of another
    layout or base, or damaged.

    Args:
        say: told in words when weights are prepared, which takes seconds.

    Raises:
        IntegrityError, MbpmError: `weights.gguf` cannot be used.
        DoesNotFitError: the disk is full.
    """
    file = packed_file(base_dir, precision)
    try:
        return _map(file, fingerprint, precision)
    except FileNotFoundError:
        how = " in 4 bits, which takes minutes" if precision == "int4" else ""
        say(f"preparing the weights for this engine{how}, once")
    except (IntegrityError, OSError) as error:
        reason = error.message if isinstance(error, IntegrityError) else str(error)
        say(f"{reason}; preparing the weights again")
    return _make(file, base_dir, fingerprint, precision)


def verify_packed(file: Path) -> int:
    """Check every byte of a packed file against the digest in its directory; return its size.

    Raises:
        IntegrityError: the file is damaged.
    """
    with file.open("rb") as stream:
        directory, start = read_directory(stream, file)
        stream.seek(start)
        digest = hashlib.sha256()
        while piece := stream.read(1 << 20):
            digest.update(piece)
    if digest.hexdigest() != directory.get("sha256"):
        raise IntegrityError(
            f"{file}: was changed, its bytes do not match its digest",
            hint="delete it, and the next `mbpm run` makes it anew",
        )
    return int(start + directory["size"])


def read_directory(stream: BinaryIO, file: Path) -> tuple[dict[str, Any], int]:
    """The directory and where the data starts.

    Raises:
        IntegrityError: truncated, damaged, or of another layout.
    """
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        raise IntegrityError(f"{file}: is truncated")
    magic, layout, length, digest = HEAD.unpack(head)
    if magic != MAGIC or layout != LAYOUT:
        raise IntegrityError(f"{file}: has another layout than this version reads")
    if length > MAX_DIRECTORY:
        raise IntegrityError(f"{file}: has a directory of {length:,} bytes")
    raw = stream.read(length)
    if hashlib.sha256(raw).digest() != digest:
        raise IntegrityError(f"{file}: its directory is damaged")
    directory = json.loads(raw)
    start = _up(HEAD.size + length)
    size = os.fstat(stream.fileno()).st_size
    if size != start + directory["size"]:
        raise IntegrityError(f"{file}: has {size:,} bytes, not {start + directory['size']:,}")
    return directory, start


def _map(file: Path, fingerprint: str, precision: str) -> Packed:
    with file.open("rb") as stream:
        directory, start = read_directory(stream, file)
        if (directory["fingerprint"], directory["precision"]) != (fingerprint, precision):
            raise IntegrityError(f"{file}: was made from other weights")
        return _mapped(stream, directory, start)


def _mapped(stream: BinaryIO, directory: dict[str, Any], start: int) -> Packed:
    pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return Packed(
        np.frombuffer(pages, dtype=np.uint8),
        ModelConfig(**directory["config"]),
        {
            m["name"]: (m["format"], m["rows"], m["columns"], start + m["at"], m["codebook"])
            for m in directory["matrices"]
        },
        {name: start + at for name, at in directory["vectors"].items()},
    )


def _make(file: Path, base_dir: Path, fingerprint: str, precision: str) -> Packed:
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=base_dir)
        stream, temporary = os.fdopen(descriptor, "w+b"), Path(name)
    except PermissionError:  # a home that only reads: made for this process alone
        stream = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError as error:
        raise DoesNotFitError(f"{file}: cannot be written ({error.strerror})") from None
    with stream:
        try:
            directory, start = _write(stream, base_dir, fingerprint, precision)
            stream.flush()
            if temporary is not None:
                os.fsync(stream.fileno())
                temporary.chmod(0o444)
                temporary.replace(file)
        except BaseException as error:
            if temporary is not None:
                with suppress(OSError):
                    temporary.unlink()
            if isinstance(error, OSError):
                raise DoesNotFitError(
                    f"{file}: cannot be written ({error.strerror})",
                    hint="free some disk, or use `--engine torch`, which needs no such file",
                ) from None
            raise
        return _mapped(stream, directory, start)


def _write(
    stream: BinaryIO, base_dir: Path, fingerprint: str, precision: str
) -> tuple[dict[str, Any], int]:
    from runtime.gguf_file import model_config, open_gguf
    from runtime.modules import check_weights
    from runtime.native.convert import matrices, vectors
    from specs.base_card import WEIGHTS_FILE

    gguf = open_gguf(base_dir / WEIGHTS_FILE)
    config = model_config(gguf)
    check_weights(gguf, config)
    directory: dict[str, Any] = {
        "fingerprint": fingerprint,
        "precision": precision,
        "config": asdict(config),
        "matrices": [],
        "vectors": {},
        "size": 0,
        "sha256": "0" * 64,
    }
    # how long the directory gets is known when the shapes are; a page for every eight is plenty
    start = _up(HEAD.size + 4096 + 256 * len(gguf.tensors))
    stream.seek(start)
    digest, position = hashlib.sha256(), 0

    def add(data: npt.NDArray[Any]) -> int:
        nonlocal position
        at = position
        for piece in (data.data, bytes(_up(data.nbytes) - data.nbytes)):
            stream.write(piece)
            digest.update(piece)
        position += _up(data.nbytes)
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
    raw = json.dumps(directory).encode()
    raw += b" " * (start - HEAD.size - len(raw))
    stream.seek(0)
    stream.write(HEAD.pack(MAGIC, LAYOUT, len(raw), hashlib.sha256(raw).digest()))
    stream.write(raw)
    return directory, start


def _up(n: int) -> int:
    return n + -n % PAGE
