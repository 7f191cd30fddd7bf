"""Files whose size and chunks nobody promised: wheels. One connection, resumed where it broke."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mbpm.fetch import limits, parts
from mbpm.fetch.body import body_length, pieces
from mbpm.fetch.client import Client, refuse, said
from mbpm.fetch.http import httpx
from mbpm.fetch.retry import AgainError, Patience
from specs.blobs import CHUNK_BYTES
from specs.errors import IntegrityError

if TYPE_CHECKING:
    from mbpm.fetch.job import Job

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


def whole_file(
    url: str, sha256: str | None, limit: int, target: Path, job: Job, client: Client
) -> None:
    """Fetch a file, going on with what an earlier attempt left.

    Args:
        url: Where it is.
        sha256: Its digest, where it is known.
        limit: Most bytes accepted.
        target: The finished file; its name is what its part files are called.
        job: Told how far it is; nothing is verified before the end.
        client: The connections to use.

    Raises:
        IntegrityError: the digest is wrong or the file is larger than `limit`.
        AuthError, NotFoundError, NetworkError: as the server answers.
    """
    part = parts.claim(job.round.parts, target.name)
    try:
        with job.network.slots.hold(url, job.stopped), part.open("r+b") as stream:
            stream.seek(0, 2)
            _File(url, sha256, limit, job, client, stream).fetch()
        with part.open("rb") as stream:
            wrong = sha256 is not None and _digest(stream) != sha256
        if wrong:
            part.write_bytes(b"")
            raise IntegrityError("its bytes do not match the digest its index gives")
        part.replace(target)
    finally:
        job.progress.status("")
        parts.release(part)


class _File:
    def __init__(
        self,
        url: str,
        sha256: str | None,
        limit: int,
        job: Job,
        client: Client,
        stream: BinaryIO,
    ) -> None:
        self._url, self._sha256, self._limit = url, sha256, limit
        self._job, self._client, self._stream = job, client, stream
        self._etag: str | None = None

    def fetch(self) -> None:
        patience = Patience(lambda: 0, self._job.progress.status, self._job.stopped)
        best = self._stream.tell()
        while True:
            try:
                self._request()
                return
            except AgainError as error:
                here = self._stream.tell()
                patience.after(error, progress=here >= best + limits.PROGRESS_BYTES)
                best = max(best, here)

    def _request(self) -> None:
        start = self._stream.tell()
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self._etag:
                headers["If-Range"] = self._etag
        with self._client.open(self._url, headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                self._check_complete()
                return
            refuse(response)
            total = self._begin(response, start)
            for piece in pieces(response, self._job.network.rate, self._job.stopped):
                self._stream.write(piece)
                if self._stream.tell() > self._limit:
                    raise IntegrityError(f"is larger than the {self._limit:,} bytes expected")
                self._job.progress.status(f"received {self._stream.tell() / 1e6:.1f} MB")
                self._job.part.beat()
        if total not in (None, self._stream.tell()):
            raise AgainError("the connection was closed early")

    def _begin(self, response: httpx.Response, start: int) -> int | None:
        """Go where the body of an answer belongs; the size of the file, where it is told."""
        etag = said(response, "etag")
        self._etag = etag if etag and etag.startswith('"') else None
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            self._stream.seek(0)
            self._stream.truncate()
            return body_length(response)
        told = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if told is None or int(told[1]) != start:
            raise AgainError("answers with another range than was asked for", kind=IntegrityError)
        return None if told[3] == "*" else int(told[3])

    def _check_complete(self) -> None:
        """After a 416: all is here already, or it is not the file we know the beginning of."""
        self._stream.flush()
        self._stream.seek(0)
        if self._sha256 is None or _digest(self._stream) != self._sha256:
            self._stream.seek(0)
            self._stream.truncate()
            raise AgainError("answers 416 to a range that it should have")


def _digest(stream: BinaryIO) -> str:
    whole = hashlib.sha256()
    for piece in iter(lambda: stream.read(CHUNK_BYTES), b""):
        whole.update(piece)
    return whole.hexdigest()
