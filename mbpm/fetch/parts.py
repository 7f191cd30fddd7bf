"""Unfinished downloads that survive anything.

A part file is called KEY.HOST.PID.RANDOM.part and written by nobody but its owner. A dead owner's
part is adopted by renaming it: exactly one adopter wins, whatever the file system thinks of locks.
Adopted chunks are believed only after their digest was checked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mbpm.files import remove
from specs.blobs import CHUNK_BYTES, Blob, WheelSource
from specs.errors import IntegrityError

if TYPE_CHECKING:
    from mbpm.output import Progress
    from mbpm.store import Store

LEASE_SECONDS = 15 * 60
"""After this long without a write a part is free, even if its owner may be alive elsewhere."""
_NOBODY = 0


def claim(parts: Path, key: str) -> Path:
    """A part file for `key` that is ours: the largest free one renamed, or a new empty one."""
    parts.mkdir(parents=True, exist_ok=True)
    ours = parts / f"{key}.{_host()}.{os.getpid()}.{uuid.uuid4().hex}.part"
    free = [(_size(p), p) for p in parts.glob(f"{key}.*.part") if _is_free(p)]
    for _, orphan in sorted(free, reverse=True):
        with contextlib.suppress(OSError):
            return orphan.rename(ours)
    ours.touch()
    return ours


def release(part: Path) -> None:
    """Give a part file up, for whoever needs it next; empty ones are removed."""
    if _size(part) == 0:
        part.unlink(missing_ok=True)
        return
    key = part.name.rsplit(".", 4)[0]
    with contextlib.suppress(FileNotFoundError):
        part.rename(free_part(part.parent, key))


def free_part(parts: Path, key: str) -> Path:
    """A name for a part file that anybody may claim."""
    return parts / f"{key}.{_host()}.{_NOBODY}.{uuid.uuid4().hex}.part"


def wheel_path(parts: Path, package: str, version: str) -> Path:
    """Where a finished wheel waits until the blob it is for is done."""
    return parts / f"{package}-{version}.whl"


def clear(parts: Path, blob: Blob, wheels: Sequence[WheelSource]) -> None:
    """Remove what fetching a blob left behind, once the blob is in the store."""
    for path in parts.glob(f"{blob.sha256}.*"):
        if path.suffix != ".part" or _is_free(path):
            remove(path)
    for source in wheels:
        for member in source.parts:
            wheel = wheel_path(parts, member.package, member.version)
            remove(wheel)
            for path in parts.glob(f"{wheel.name}.*.part"):
                if _is_free(path):
                    remove(path)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "host"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_free(part: Path) -> bool:
    fields = part.name.rsplit(".", 4)
    if len(fields) != 5 or not fields[2].isdigit():
        return False
    if int(fields[2]) == _NOBODY:
        return True
    try:
        idle = time.time() - part.stat().st_mtime
    except OSError:
        return False
    if idle > LEASE_SECONDS:
        return True
    return fields[1] == _host() and not _alive(int(fields[2]))


def _alive(pid: int) -> bool:
    if os.name == "nt":
        # there is no harmless probe; the lease decides
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def open_part(parts: Path, blob: Blob, progress: Progress) -> Iterator[Part]:
    """The part file of a blob, with the chunks an earlier attempt verified; released at the end."""
    path = claim(parts, blob.sha256)
    try:
        with path.open("r+b") as stream:
            part = Part(path, stream, blob, progress)
            part.verify_adopted()
            yield part
    finally:
        release(path)


class Part:
    """A blob being put together from verified chunks, in any order."""

    def __init__(self, path: Path, stream: BinaryIO, blob: Blob, progress: Progress) -> None:
        self.path = path
        self.blob = blob
        self._stream = stream
        self._progress = progress
        self._verified = [False] * len(blob.chunks)
        self._buffer = bytearray()
        self._start = 0
        """Offset of the first byte of `_buffer`; always the start of a chunk."""

    @property
    def verified(self) -> int:
        """How many chunks are verified."""
        return sum(self._verified)

    def missing(self) -> list[int]:
        """The indices of the chunks that are still needed, ascending."""
        return [i for i, done in enumerate(self._verified) if not done]

    def length(self, index: int) -> int:
        """Bytes of one chunk."""
        return min(CHUNK_BYTES, self.blob.size - index * CHUNK_BYTES)

    def verify_adopted(self) -> None:
        """Find out which chunks of the file are right."""
        size = _size(self.path)
        for index in self.missing():
            if index * CHUNK_BYTES >= size:
                break
            self._stream.seek(index * CHUNK_BYTES)
            if self._matches(index, self._stream.read(self.length(index))):
                self._mark(index)

    def feed(self, offset: int, data: bytes, name: str) -> None:
        """Take bytes of the blob as they come; each chunk is checked and written once complete.

        Args:
            offset: Where `data` begins in the blob. A jump drops an incomplete chunk.
            data: Consecutive bytes.
            name: Blob and source, for messages.

        Raises:
            IntegrityError: a chunk is wrong, or there are more bytes than the blob has.
        """
        if offset != self._start + len(self._buffer):
            self._buffer.clear()
            skip = -offset % CHUNK_BYTES
            if skip >= len(data) > 0:
                # nothing of these bytes starts a chunk; stay where the next call may continue
                self._start = offset + skip
                return
            data = data[skip:]
            self._start = offset + skip
        self._buffer += data
        while self._buffer:
            if self._start >= self.blob.size:
                raise IntegrityError(
                    f"{name}: sends more than the {self.blob.size:,} bytes expected"
                )
            index = self._start // CHUNK_BYTES
            length = self.length(index)
            if len(self._buffer) < length:
                return
            self._put(index, bytes(self._buffer[:length]), name)
            del self._buffer[:length]
            self._start += length

    def _put(self, index: int, chunk: bytes, name: str) -> None:
        if not self._matches(index, chunk):
            self._buffer.clear()
            raise IntegrityError(
                f"{name}: chunk {index} (bytes {index * CHUNK_BYTES:,} to "
                f"{index * CHUNK_BYTES + len(chunk) - 1:,}) has the wrong digest"
            )
        if self._verified[index]:
            return
        self._stream.seek(index * CHUNK_BYTES)
        self._stream.write(chunk)
        self._stream.flush()
        self._mark(index)

    def _matches(self, index: int, chunk: bytes) -> bool:
        return hashlib.sha256(chunk).hexdigest() == self.blob.chunks[index]

    def _mark(self, index: int) -> None:
        self._verified[index] = True
        self._progress.advance(self.length(index))

    def check_whole(self, what: str) -> None:
        """Check the digest of the finished file and make it durable.

        Raises:
            IntegrityError: the chunk digests do not belong to the blob's digest.
        """
        self._stream.truncate(self.blob.size)
        self._stream.flush()
        self._stream.seek(0)
        whole = hashlib.sha256()
        for piece in iter(lambda: self._stream.read(CHUNK_BYTES), b""):
            whole.update(piece)
        if whole.hexdigest() != self.blob.sha256:
            raise IntegrityError(f"{what}: every chunk is right and the whole has the wrong digest")
        os.fsync(self._stream.fileno())

    def adopt_into(self, store: Store) -> None:
        """Move the finished file into the store."""
        # an open file cannot be renamed on Windows
        self._stream.close()
        store.adopt(self.path, self.blob.sha256)
