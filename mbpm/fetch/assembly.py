"""A blob being put together from verified chunks, in any order, by any number of threads."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.fetch import limits, parts
from specs.blobs import CHUNK_BYTES, Blob
from specs.errors import IntegrityError

if TYPE_CHECKING:
    from mbpm.output import Progress
    from mbpm.store import Store

_BACKGROUND_CHUNKS = 3
"""From so many chunks on, the digest of the whole is computed while they come."""


_MOST_UNHASHED = 8
_MAX_VECTOR = 512
"""The most pieces that one system call writes."""


class LostError(Exception):
    """Somebody else took the part file over, or removed it."""


class Chunk:
    """Consecutive bytes of one chunk, hashed as they come and kept in memory until they count."""

    def __init__(self, index: int, length: int) -> None:
        self.index = index
        self.length = length
        self.size = 0
        self.pieces: list[memoryview] = []
        self._digest = hashlib.sha256()

    @property
    def full(self) -> bool:
        """Whether all bytes are there."""
        return self.size == self.length

    def add(self, data: memoryview) -> None:
        """Take the next bytes, at most as many as are missing."""
        self._digest.update(data)
        self.pieces.append(data)
        self.size += len(data)

    def digest(self) -> str:
        """SHA-256 of the bytes so far, in hexadecimal."""
        return self._digest.hexdigest()


class Part:
    """One part file of ours, and which of its chunks are verified."""

    def __init__(self, path: Path, blob: Blob, progress: Progress) -> None:
        self.path = path
        self.blob = blob
        self._progress = progress
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._verified = bytearray(len(blob.chunks))
        self._count = 0
        self._front = 0
        """How many chunks are verified without a gap, from the first one on."""
        self._hashed = 0
        self._closed = False
        self._writers = 0
        self._next_beat = time.monotonic() + parts.BEAT_SECONDS
        self._stream = path.open("r+b", buffering=0)
        self._chunks = self._open_chunks()
        self._background: list[threading.Thread] = []
        self._whole = hashlib.sha256()
        self._failure: BaseException | None = None

    def _open_chunks(self) -> FileIO:
        path = self.path.with_suffix(parts.CHUNKS)
        if not path.is_file():
            path.touch()
        stream = path.open("r+b", buffering=0)
        self._marked = stream.read(len(self.blob.chunks))
        # what it says is checked first, and until then nothing is claimed
        stream.seek(0)
        stream.write(b"0" * len(self.blob.chunks))
        stream.truncate()
        return stream

    @property
    def count(self) -> int:
        """How many chunks are verified."""
        return self._count

    def has(self, index: int) -> bool:
        """Whether a chunk is verified."""
        return bool(self._verified[index])

    def missing(self) -> list[int]:
        """The indices of the chunks that are still needed, ascending."""
        if self._count == len(self._verified):
            return []
        return [i for i, done in enumerate(self._verified) if not done]

    def kept(self) -> list[int]:
        """The indices of the chunks that are verified, ascending."""
        return [i for i, done in enumerate(self._verified) if done]

    def length(self, index: int) -> int:
        """Bytes of one chunk."""
        return min(CHUNK_BYTES, self.blob.size - index * CHUNK_BYTES)

    def chunk(self, index: int) -> Chunk:
        """An empty chunk to fill."""
        return Chunk(index, self.length(index))

    def keep(self, chunk: Chunk) -> bool:
        """Write a full chunk if it is right.

        Returns:
            Whether it is.

        Raises:
            LostError: the part was closed meanwhile.
            OSError: it cannot be written.
        """
        if chunk.digest() != self.blob.chunks[chunk.index]:
            return False
        with self._changed:
            if self._closed:
                raise LostError
            if self._verified[chunk.index]:
                return True
            self._writers += 1
        try:
            self._write(chunk.pieces, chunk.index * CHUNK_BYTES)
        finally:
            with self._changed:
                self._writers -= 1
                self._changed.notify_all()
        self._mark(chunk.index)
        self._let_hash_catch_up()
        return True

    def wrong(self, index: int, name: str) -> IntegrityError:
        """What to raise where a source called `name` gives other bytes for a chunk."""
        begin = index * CHUNK_BYTES
        end = begin + self.length(index) - 1
        return IntegrityError(
            f"{name}: chunk {index} (bytes {begin:,} to {end:,}) has the wrong digest"
        )

    def _write(self, pieces: list[memoryview], offset: int) -> None:
        if not hasattr(os, "pwritev"):
            with self._lock:
                self._stream.seek(offset)
                for piece in pieces:
                    while piece:
                        piece = piece[self._stream.write(piece) :]
            return
        handle = self._stream.fileno()
        while pieces:
            written = os.pwritev(handle, pieces[:_MAX_VECTOR], offset)
            offset += written
            while pieces and written >= len(pieces[0]):
                written -= len(pieces[0])
                pieces = pieces[1:]
            if written:
                pieces = [pieces[0][written:], *pieces[1:]]

    def _mark(self, index: int) -> None:
        with self._changed:
            if self._closed:
                raise LostError
            if self._verified[index]:
                return
            self._verified[index] = True
            self._count += 1
            while self._front < len(self._verified) and self._verified[self._front]:
                self._front += 1
            self._chunks.seek(index)
            self._chunks.write(b"1")
            self._changed.notify_all()
        self._progress.advance(self.length(index))

    def _let_hash_catch_up(self) -> None:
        """Bring no more while the digest of the whole lags: in the end nothing runs beside it."""
        with self._changed:
            while (
                self._background
                and self._front - self._hashed > _MOST_UNHASHED
                and self._failure is None
                and not self._closed
            ):
                self._changed.wait()

    def beat(self) -> None:
        """Show that the owner lives, now and then."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + parts.BEAT_SECONDS
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def verify_adopted(self) -> None:
        """Find out which chunks of the file are right; holes are not read."""
        buffer = memoryview(bytearray(CHUNK_BYTES))
        with self.path.open("rb", buffering=0) as stream:
            for index in self._candidates(stream):
                data = buffer[: self.length(index)]
                stream.seek(index * CHUNK_BYTES)
                whole = _fill(stream, data)
                if whole and hashlib.sha256(data).hexdigest() == self.blob.chunks[index]:
                    self._mark(index)
                self.beat()

    def _candidates(self, stream: FileIO) -> Iterator[int]:
        size = self.path.stat().st_size
        for index in self.missing():
            if index * CHUNK_BYTES >= size:
                return
            marked = self._marked[index : index + 1] == b"1"
            if marked or _has_data(stream, index * CHUNK_BYTES, self.length(index)):
                yield index

    def begin(self) -> None:
        """Hash the whole and write through to the disk while chunks come, unless they are few."""
        if len(self._verified) < _BACKGROUND_CHUNKS:
            return
        stream = self.path.open("rb", buffering=0)
        for work in (lambda: self._hash(stream), self._write_through):
            thread = threading.Thread(target=self._guarded, args=(work,), daemon=True)
            thread.start()
            self._background.append(thread)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _hash(self, stream: FileIO) -> None:
        """Hash the chunks in order, each once it is verified, as they stand in the file."""
        buffer = memoryview(bytearray(min(CHUNK_BYTES, self.blob.size)))
        with stream:
            for index in range(len(self._verified)):
                with self._changed:
                    while not (self._closed or self._verified[index]):
                        self._changed.wait()
                    if self._closed:
                        return
                data = buffer[: self.length(index)]
                if not _fill(stream, data):
                    raise LostError
                self._whole.update(data)
                with self._changed:
                    self._hashed += 1
                    self._changed.notify_all()

    def _write_through(self) -> None:
        """Begin early with what takes long: the disk is slower than everything else."""
        sync = getattr(os, "fdatasync", os.fsync)
        step = max(1, limits.SYNC_BYTES // CHUNK_BYTES)
        reached = 0
        while True:
            with self._changed:
                while not self._closed and self._count < min(reached + step, len(self._verified)):
                    self._changed.wait()
                reached = self._count
                if self._closed or reached == len(self._verified):
                    return
            sync(self._stream.fileno())

    def finish(self, store: Store, what: str) -> None:
        """Check the digest of the whole, make it durable and move it into the store.

        Raises:
            IntegrityError: the chunk digests do not belong to the blob's digest.
            LostError: the file is not ours any more.
        """
        if not self._background:
            self._hash(self.path.open("rb", buffering=0))
        for thread in self._background:
            thread.join()
        if self._failure is not None:
            raise self._failure
        if self._whole.hexdigest() != self.blob.sha256:
            raise IntegrityError(
                f"{what}: every chunk is right and the whole has the wrong digest",
                hint="its manifest contradicts itself: tell the publisher",
            )
        self._stream.truncate(self.blob.size)
        os.fsync(self._stream.fileno())
        # an open file cannot be renamed on Windows
        self.close()
        if store.has(self.blob):
            parts.discard(self.path)
            return
        try:
            store.adopt(self.path, self.blob.sha256)
        except FileNotFoundError:
            raise LostError from None
        parts.discard(self.path)

    def close(self) -> None:
        """Let go of the file; whoever is still writing to it fails."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            # the number of a closed file may be another file's by the time they write
            while self._writers:
                self._changed.wait()
        for thread in self._background:
            thread.join()
        self._stream.close()
        self._chunks.close()


def _fill(stream: FileIO, buffer: memoryview) -> bool:
    """Read as many bytes as there is room for; False where the file ends before."""
    got = 0
    while got < len(buffer):
        count = stream.readinto(buffer[got:])
        if not count:
            return False
        got += count
    return True


def _has_data(stream: FileIO, offset: int, length: int) -> bool:
    """Whether any of these bytes were ever written; true where the system does not tell."""
    if not hasattr(os, "SEEK_DATA"):
        return True
    try:
        return os.lseek(stream.fileno(), offset, os.SEEK_DATA) < offset + length
    except OSError as error:
        return error.errno != errno.ENXIO


@contextlib.contextmanager
def open_part(folder: Path, blob: Blob, progress: Progress) -> Iterator[Part]:
    """The part file of a blob, with every chunk that earlier attempts left; released at the end."""
    path = parts.claim(folder, blob.sha256)
    part = None
    try:
        part = Part(path, blob, progress)
        part.begin()
        part.verify_adopted()
        while part.missing() and (other := parts.adopt(folder, blob.sha256)):
            _merge(part, other)
        yield part
    finally:
        if part is not None:
            part.close()
        parts.release(path)


def _merge(part: Part, other: Path) -> None:
    """Take what another orphan has and we do not."""
    try:
        with other.open("rb") as stream:
            for index in part.missing():
                stream.seek(index * CHUNK_BYTES)
                chunk = part.chunk(index)
                chunk.add(memoryview(stream.read(chunk.length)))
                if chunk.full:
                    part.keep(chunk)
    except OSError:
        return
    parts.discard(other)
