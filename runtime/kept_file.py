"""Files that stand beside a base's weights because they load faster: one container for all.

A head, a directory of plain values (JSON, under its own digest), and from the next page on the
data, whose digest the directory holds. Layout in runtime/native/README.md. Each is made once, and
again where it does not fit; nothing depends on one being there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from specs.errors import IntegrityError

MAGIC = b"MBPMPACK"
LAYOUT = 1
PAGE = 4096
HEAD = struct.Struct("<8sII32s")
MAX_DIRECTORY = 16 * 1024 * 1024


def read_directory(stream: BinaryIO, file: Path) -> tuple[dict[str, Any], int]:
    """The directory and where the data starts; the data itself is not looked at.

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
    with understood(file):
        directory = json.loads(raw)
        start, expected = page_up(HEAD.size + length), int(directory["size"])
    size = os.fstat(stream.fileno()).st_size
    if size != start + expected:
        raise IntegrityError(f"{file}: has {size:,} bytes, not {start + expected:,}")
    return directory, start


@contextmanager
def understood(file: Path) -> Iterator[None]:
    """What goes wrong inside, where a directory is taken apart, is an IntegrityError of `file`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise IntegrityError(f"{file}: its directory is not understood ({reason})") from None


def verify_kept(file: Path) -> int:
    """Check every byte of a file against the digests in it; return its size.

    Raises:
        IntegrityError: it is damaged.
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
        return stream.tell()


def write_head(stream: BinaryIO, directory: Mapping[str, Any], start: int) -> None:
    """Put head and directory before data that begins at `start`, a multiple of PAGE."""
    raw = json.dumps(directory).encode()
    raw += b" " * (start - HEAD.size - len(raw))
    stream.seek(0)
    stream.write(HEAD.pack(MAGIC, LAYOUT, len(raw), hashlib.sha256(raw).digest()))
    stream.write(raw)


def directory_room(directory: Mapping[str, Any]) -> int:
    """Where data may begin behind a directory that will not grow."""
    return page_up(HEAD.size + len(json.dumps(directory).encode()))


@contextmanager
def making(file: Path) -> Iterator[BinaryIO]:
    """A new file that gets its name when the context ends without an error, and is gone otherwise.

    Raises:
        OSError: the folder or the disk refuses.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o444)
        temporary.replace(file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def only_reads(error: OSError) -> bool:
    """Whether a folder refused because nobody, or not we, may write into it."""
    return isinstance(error, PermissionError) or error.errno == errno.EROFS


def private_place() -> BinaryIO:
    """A file without a name for what cannot be kept: in the system's folder for such, or in memory.

    Raises:
        OSError: there is neither.
    """
    try:
        return tempfile.TemporaryFile()
    except OSError:
        if not hasattr(os, "memfd_create"):
            raise
        return os.fdopen(os.memfd_create("mbpm"), "w+b")


def page_up(n: int) -> int:
    """The next multiple of PAGE."""
    return n + -n % PAGE
