"""Blobs from files on this machine."""

from __future__ import annotations

from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.fetch.job import StoppedError
from specs.blobs import CHUNK_BYTES
from specs.errors import IntegrityError, MbpmError, NotFoundError

if TYPE_CHECKING:
    from mbpm.fetch.job import Job


def from_file(file: Path, job: Job, start: int = 0) -> None:
    """Take the chunks that are still missing from a local file; all that are right are kept.

    Args:
        file: The file.
        job: What is wanted.
        start: Where the blob begins in the file.

    Raises:
        NotFoundError: there is no such file.
        IntegrityError: a chunk's bytes are not the blob's.
        MbpmError: it cannot be read.
    """
    # a source that is called by its whole path need not name it again
    where = "" if str(file) in job.name else f"{file}: "
    wrong: list[int] = []
    try:
        stream = file.open("rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFoundError(f"{where}no such file") from None
    except OSError as error:
        raise MbpmError(f"{where}cannot be read ({error.strerror or error})") from None
    with stream:
        for index in job.part.missing():
            if job.stopped.is_set():
                raise StoppedError
            chunk = job.part.chunk(index)
            chunk.add(memoryview(_read(stream, start + index * CHUNK_BYTES, chunk.length, where)))
            if not chunk.full:
                raise IntegrityError(
                    f"{job.name}: holds fewer bytes than the {job.part.blob.size:,} expected"
                )
            if not job.part.keep(chunk):
                wrong.append(index)
            job.part.beat()
    if wrong:
        raise job.part.wrong(wrong[0], job.name)


def _read(stream: FileIO, offset: int, length: int, where: str) -> bytes:
    try:
        stream.seek(offset)
        data = stream.read(length)
        # a large read may stop early
        while len(data) < length and (more := stream.read(length - len(data))):
            data += more
        return data
    except OSError as error:
        raise MbpmError(f"{where}cannot be read ({error.strerror or error})") from None
