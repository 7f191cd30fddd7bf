"""Ranged, resumable downloads over HTTP: 200, 206 and 416 handled, retries that count progress."""

from __future__ import annotations

import hashlib
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from mbpm.fetch.network import Document
from mbpm.fetch.parts import Part, claim, release
from specs.blobs import CHUNK_BYTES
from specs.errors import AuthError, IntegrityError, MbpmError, NetworkError, NotFoundError

if TYPE_CHECKING:
    from mbpm.fetch.network import Network
    from mbpm.output import Progress

RETRIES = 4
"""Attempts in a row without a new byte before a source is given up."""
BACKOFF_SECONDS = 0.5
STALL_SECONDS = 30.0
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class _BusyError(Exception):
    """The server asks to come back later."""


class _RangeError(Exception):
    """416: the server has no such range (any more)."""


@dataclass
class _Answer:
    offset: int
    total: int | None
    pieces: Iterator[bytes]


class _Server:
    """One address, remembering the entity tag so that two versions are never mixed."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self._client = client
        self.url = url
        self._etag: str | None = None

    @contextmanager
    def read(self, start: int, stop: int | None = None) -> Iterator[_Answer]:
        """The bytes [start, stop); the answer may begin earlier where the server has no ranges.

        Raises:
            AuthError, NotFoundError, IntegrityError: there is no point in asking again.
            _BusyError, _RangeError, httpx.TransportError: there may be.
        """
        headers = {"Accept-Encoding": "identity"}
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
            if self._etag:
                headers["If-Range"] = self._etag
        with self._client.stream("GET", self.url, headers=headers) as response:
            _refuse(response)
            etag = response.headers.get("etag", "")
            # a weak tag does not promise equal bytes
            self._etag = etag if etag.startswith('"') else None
            pieces = response.iter_raw(1 << 16)
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                length = response.headers.get("content-length", "")
                yield _Answer(0, int(length) if length.isdigit() else None, pieces)
                return
            match = _RANGE.fullmatch(response.headers.get("content-range", ""))
            if match is None or int(match[1]) != start:
                raise IntegrityError("answers with another range than was asked for")
            yield _Answer(start, None if match[3] == "*" else int(match[3]), pieces)


def _refuse(response: httpx.Response) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    answer = f"answers {status} {response.reason_phrase}".rstrip()
    if status in (401, 403, 407):
        raise AuthError(answer)
    if status in (404, 410, 451):
        raise NotFoundError(answer)
    if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise _RangeError
    if status in (408, 425, 429) or status >= 500:
        raise _BusyError(answer)
    raise NetworkError(answer)


def _client(cert: str | None) -> httpx.Client:
    """A client that honours the environment's proxies and certificates."""
    verify: ssl.SSLContext | bool = True
    if cert is not None:
        try:
            verify = ssl.create_default_context(cafile=cert)
        except OSError as error:
            raise NetworkError(f"{cert}: is not a file of certificates ({error})") from None
    return httpx.Client(
        follow_redirects=True,
        verify=verify,
        timeout=httpx.Timeout(STALL_SECONDS, connect=15.0),
        headers={"User-Agent": "mbpm"},
    )


def from_url(url: str, part: Part, name: str, progress: Progress) -> None:
    """Fetch the chunks a part still misses; raises what `_persist` and `Part.feed` raise."""
    with _session(url) as server:

        def step() -> bool:
            missing = part.missing()
            if not missing:
                return True
            first = missing[0]
            after = next((i for i in range(first, len(part.blob.chunks)) if i not in missing), None)
            stop = part.blob.size if after is None else after * CHUNK_BYTES
            whole = first == 0 and after is None
            with server.read(first * CHUNK_BYTES, None if whole else stop) as answer:
                if answer.total not in (None, part.blob.size):
                    raise IntegrityError(
                        f"has {answer.total:,} bytes, and {part.blob.size:,} are expected"
                    )
                offset = answer.offset
                for piece in answer.pieces:
                    part.feed(offset, piece, name)
                    offset += len(piece)
            return not part.missing()

        _persist(step, lambda: part.verified, progress)


def small_file(url: str, accept: str, limit: int, *, cert: str | None) -> tuple[bytes, str]:
    """A document in memory, and the address it came from in the end.

    Raises:
        NetworkError: it cannot be had, or is larger than `limit`.
        AuthError, NotFoundError: as the server answers.
    """
    headers = {"Accept": accept, "Accept-Encoding": "identity"}
    body = bytearray()
    try:
        with _client(cert) as session, session.stream("GET", url, headers=headers) as response:
            _refuse(response)
            for piece in response.iter_raw():
                body += piece
                if len(body) > limit:
                    raise NetworkError(f"{url}: answers with more than {limit:,} bytes")
            return bytes(body), str(response.url)
    except (httpx.HTTPError, httpx.InvalidURL, _BusyError, _RangeError) as error:
        raise NetworkError(f"{urlsplit(url).hostname}: {_words(error)}") from None


def document(
    network: Network, url: str, limit: int, etag: str | None, modified: str | None, accept: str
) -> Document:
    """See `Network.get`."""
    headers = {"Accept": accept, "Accept-Encoding": "identity", **network.authorize(url)}
    if etag:
        headers["If-None-Match"] = etag
    elif modified:
        headers["If-Modified-Since"] = modified
    body = bytearray()
    try:
        with _client(None) as session, session.stream("GET", url, headers=headers) as response:
            tag, date = response.headers.get("etag"), response.headers.get("last-modified")
            address = str(response.url)
            if response.status_code == httpx.codes.NOT_MODIFIED:
                return Document(None, tag or etag, date or modified, address)
            _refuse(response)
            for piece in response.iter_raw():
                body += piece
                if len(body) > limit:
                    raise NetworkError(f"{url}: answers with more than {limit:,} bytes")
            return Document(bytes(body), tag, date, address)
    except (httpx.HTTPError, httpx.InvalidURL, _BusyError, _RangeError) as error:
        raise NetworkError(f"{urlsplit(url).hostname}: {_words(error)}") from None
    except (AuthError, NotFoundError, NetworkError) as error:
        if url not in error.message:
            raise type(error)(f"{url}: {error.message}", hint=error.hint) from None
        raise


def whole_file(
    url: str,
    key: str,
    sha256: str | None,
    limit: int,
    parts: Path,
    target: Path,
    progress: Progress,
    *,
    cert: str | None = None,
) -> None:
    """Fetch a file of unknown size, resuming what an earlier attempt left.

    Args:
        url: Where it is.
        key: What its part files are called.
        sha256: Its digest, where it is known.
        limit: Most bytes accepted.
        parts: Where part files live.
        target: The finished file.
        progress: Told how far it is; nothing is verified before the end.
        cert: A file of certificates to trust instead of the usual ones.

    Raises:
        IntegrityError: the digest is wrong or the file is larger than `limit`.
        MbpmError: as `_persist`.
    """
    part = claim(parts, key)
    try:
        with _session(url, cert) as server, part.open("r+b") as stream:
            stream.seek(0, 2)

            def step() -> bool:
                try:
                    with server.read(stream.tell()) as answer:
                        if answer.offset != stream.tell():
                            stream.seek(answer.offset)
                            stream.truncate()
                        for piece in answer.pieces:
                            stream.write(piece)
                            if stream.tell() > limit:
                                raise IntegrityError(f"is larger than the {limit:,} bytes expected")
                            progress.status(f"received {stream.tell() / 1e6:.1f} MB")
                        return answer.total in (None, stream.tell())
                except _RangeError:
                    # complete already, or not the file we know the beginning of: the digest tells
                    if sha256 is not None and _digest(part, stream.flush) == sha256:
                        return True
                    stream.seek(0)
                    stream.truncate()
                    raise

            _persist(step, stream.tell, progress)
        if sha256 is not None and _digest(part) != sha256:
            part.write_bytes(b"")
            raise IntegrityError("its bytes do not match the digest its index gives")
        part.replace(target)
    finally:
        progress.status("")
        release(part)


def _digest(file: Path, before: Callable[[], object] = lambda: None) -> str:
    before()
    whole = hashlib.sha256()
    with file.open("rb") as stream:
        for piece in iter(lambda: stream.read(CHUNK_BYTES), b""):
            whole.update(piece)
    return whole.hexdigest()


@contextmanager
def _session(url: str, cert: str | None = None) -> Iterator[_Server]:
    try:
        with _client(cert) as session:
            yield _Server(session, url)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise NetworkError(f"is not an address that can be fetched ({error})") from None
    except (httpx.TooManyRedirects, httpx.DecodingError) as error:
        raise NetworkError(str(error)) from None


def _persist(step: Callable[[], bool], mark: Callable[[], int], progress: Progress) -> None:
    """Repeat `step` until it returns true; every bit of progress renews the patience.

    Raises:
        NetworkError: nothing new came in `RETRIES` attempts in a row; says why.
        MbpmError: what the step raises.
    """
    failures = 0
    while True:
        before = mark()
        try:
            if step():
                return
            reason = "the connection was closed early"
        except MbpmError:
            raise
        except httpx.TransportError as error:
            reason = _words(error)
        except _BusyError as error:
            reason = str(error)
        except _RangeError:
            reason = "answers 416 to a range it should have"
        failures = 1 if mark() > before else failures + 1
        if failures >= RETRIES:
            raise NetworkError(f"{reason} ({RETRIES} attempts without a new byte)")
        progress.status(f"{reason}; trying again")
        time.sleep(min(8.0, BACKOFF_SECONDS * 2**failures) * random.uniform(0.5, 1.0))


def _words(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"nothing came for {STALL_SECONDS:.0f} s"
    text = str(error)
    return text[:1].lower() + text[1:] if text else type(error).__name__
