"""One address read by several connections into one part.

Each reader takes a run of missing chunks and asks for it with one request. A reader without work
takes over the second half of the largest run still on its way. What comes is checked chunk by
chunk, so a wrong byte costs one chunk, and a connection that breaks costs nothing: the next one
goes on in the middle of the chunk. Nothing a server says about its file is believed beyond what
saves traffic; only digests decide.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbpm.fetch import limits
from mbpm.fetch.assembly import Chunk, Part
from mbpm.fetch.body import body_length, pieces
from mbpm.fetch.client import refuse, said
from mbpm.fetch.http import httpx
from mbpm.fetch.job import StoppedError
from mbpm.fetch.retry import AgainError, Patience
from specs.blobs import CHUNK_BYTES
from specs.errors import IntegrityError, MbpmError

if TYPE_CHECKING:
    from mbpm.fetch.job import Job

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_TOTAL = re.compile(r"bytes \*/(\d{1,18})")


def from_url(url: str, job: Job, private: Mapping[str, str] | None = None) -> None:
    """Fetch the chunks a part still misses.

    Args:
        url: Where the blob is.
        job: The part, and the way there.
        private: Headers for that address's server only.

    Raises:
        IntegrityError: it holds something else, or some chunks stay wrong; the others were kept.
        AuthError, NotFoundError, NetworkError: as it answers.
        StoppedError, LostError: leave.
    """
    with job.network.slots.hold(url, job.stopped):
        _Ranges(url, job, private or {}).run()


@dataclass(eq=False)
class _Run:
    """Chunks that one reader is to bring, and how far it is."""

    at: int
    """The first chunk that is not done."""
    stop: int
    """The first chunk that is somebody else's."""
    partial: Chunk | None = None
    """What came of chunk `at` before the connection broke."""
    begun: float = field(default_factory=time.monotonic)
    first: int = -1
    """Where `at` began."""

    def __post_init__(self) -> None:
        self.first = self.at

    @property
    def start(self) -> int:
        """The offset of the next byte to ask for."""
        return self.at * CHUNK_BYTES + (self.partial.size if self.partial else 0)

    @property
    def left(self) -> int:
        """How many chunks are not done."""
        return self.stop - self.at

    @property
    def seconds_left(self) -> float:
        """How long it will take at the speed so far."""
        return (time.monotonic() - self.begun) * self.left / max(1, self.at - self.first)


class _Ranges:
    def __init__(self, url: str, job: Job, private: Mapping[str, str]) -> None:
        self._url, self._job, self._private = url, job, private
        self._part = job.part
        self._changed = threading.Condition()
        self._runs: list[_Run] = []
        self._helpers = 0
        self._wrong: Counter[int] = Counter()
        self._doubted: set[int] = set()
        self._ranged: bool | None = None
        """Whether the server understands ranges, once that is known."""
        self._etag: str | None = None
        self._conditional = True
        self._crowded = False
        """Whether the server refused a second connection."""
        self._crash: BaseException | None = None
        self._over = False

    def run(self) -> None:
        """Read until nothing is missing that can be had here; raises as `from_url`."""
        patience = Patience(lambda: self._part.count, self._job.progress.status, self._job.stopped)
        try:
            while (run := self._take(waits=True)) is not None:
                self._bring(run, patience, helper=False)
        finally:
            # helpers leave on their own; what they still bring of use is welcome
            self._over = True
        if self._crash is not None:
            raise self._crash
        if self._doubted:
            raise self._part.wrong(min(self._doubted), self._job.name)

    def _take(self, *, waits: bool) -> _Run | None:
        """Chunks to bring; None where there are none left.

        Args:
            waits: Until no reader has any: those of one that fails are to be brought by others.
        """
        with self._changed:
            while True:
                if self._job.stopped.is_set():
                    raise StoppedError
                if self._crash is not None or self._over:
                    return None
                if len(self._doubted) >= limits.WRONG_CHUNKS:
                    return None
                run = self._free_run() or self._half_run()
                if run is not None:
                    self._runs.append(run)
                    return run
                if not (waits and self._helpers) and not self._worth_waiting():
                    return None
                if not waits and self._job.network.slots.wanted(self._url):
                    return None
                self._changed.wait(limits.POLL_SECONDS)

    def _free_run(self) -> _Run | None:
        taken = [range(run.at, run.stop) for run in self._runs]
        free = [
            index
            for index in self._part.missing()
            if index not in self._doubted and not any(index in t for t in taken)
        ]
        if not free:
            return None
        most = len(self._part.blob.chunks)
        if self._ranged is not False:
            share = -(-len(free) // limits.CONNECTIONS)
            most = min(limits.SEGMENT_CHUNKS, max(limits.MIN_SEGMENT_CHUNKS, share))
        stop = free[0]
        for index in free[:most]:
            if index != stop:
                break
            stop += 1
        return _Run(free[0], stop)

    def _half_run(self) -> _Run | None:
        """The second half of what another reader will be longest at, if that is long.

        A server has always sent more than was read: what it sent of this half comes twice.
        """
        if not self._worth_waiting():
            return None
        other = max(self._runs, key=lambda run: run.seconds_left)
        if other.left < limits.MIN_SEGMENT_CHUNKS or other.seconds_left < limits.RELIEF_SECONDS:
            return None
        middle = (other.at + other.stop + 1) // 2
        run = _Run(middle, other.stop)
        other.stop = middle
        return run

    def _worth_waiting(self) -> bool:
        """Whether another reader has so much left that half of it may have to be taken over."""
        if self._ranged is not True:
            return False
        return any(run.left >= limits.MIN_SEGMENT_CHUNKS for run in self._runs)

    def _bring(self, run: _Run, patience: Patience, *, helper: bool) -> None:
        best = run.start
        try:
            while run.at < run.stop:
                try:
                    self._request(run, helper=helper)
                except AgainError as error:
                    if helper and error.busy:
                        raise
                    patience.after(error, progress=run.start >= best + limits.PROGRESS_BYTES)
                    best = max(best, run.start)
        finally:
            with self._changed:
                self._runs.remove(run)
                self._changed.notify_all()

    def _request(self, run: _Run, *, helper: bool) -> None:
        part, start = self._part, run.start
        headers = {"Accept-Encoding": "identity"}
        if start or run.stop < len(part.blob.chunks):
            last = min(run.stop * CHUNK_BYTES, part.blob.size) - 1
            headers["Range"] = f"bytes={start}-{last}"
            if self._etag and self._conditional:
                headers["If-Range"] = self._etag
        client = self._job.network.client
        with client.open(self._url, headers, self._private) as response:
            offset = self._offset(response, run, conditional="If-Range" in headers)
            if "Range" in headers and self._ranged is False:
                if helper:
                    raise AgainError("has no ranges", busy=True)
                self._from_the_beginning(run)
            elif self._ranged and not helper:
                self._invite()
            reader = _Reader(self, run, offset, part)
            for piece in pieces(response, self._job.network.rate, self._job.stopped):
                part.beat()
                if reader.feed(piece):
                    return
        if run.at < run.stop:
            raise AgainError("sends less than it was asked for")

    def _offset(self, response: httpx.Response, run: _Run, *, conditional: bool) -> int:
        """Where the body of an answer begins; remembers what else its headers tell."""
        size, status = self._part.blob.size, response.status_code
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            told = _TOTAL.fullmatch(response.headers.get("content-range", ""))
            if told and int(told[1]) != size:
                raise _other_size(int(told[1]), size)
            raise AgainError("answers 416 to a range that it should have")
        refuse(response)
        etag = said(response, "etag")
        # a weak tag does not promise equal bytes
        now = etag if etag and etag.startswith('"') else None
        before, self._etag = self._etag, now
        changed = before is not None and before != now
        if status != httpx.codes.PARTIAL_CONTENT:
            length = body_length(response)
            if length is not None and length != size:
                raise _other_size(length, size)
            if conditional and changed and run.start:
                # the digests tell whether it matters; it may be the same file with another tag
                self._conditional, run.partial = False, None
                raise AgainError("the file changed on the server")
            if "range" in response.request.headers and not (conditional and changed):
                self._ranged = False
            return 0
        told = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if told is None or int(told[1]) != run.start or int(told[2]) >= size:
            raise AgainError("answers with another range than was asked for", kind=IntegrityError)
        if told[3] != "*" and int(told[3]) != size:
            raise _other_size(int(told[3]), size)
        if changed and run.partial is not None:
            run.partial = None
            raise AgainError("the file changed on the server")
        self._ranged = True
        return run.start

    def _from_the_beginning(self, run: _Run) -> None:
        """Make a run of everything, for a server that sends everything whatever it is asked."""
        with self._changed:
            run.partial = None
            run.at, run.stop = 0, max([run.stop, *[i + 1 for i in self._part.missing()]])

    def _invite(self) -> None:
        """Have as many helpers as there are connections to spare and chunks to share."""
        with self._changed:
            left = len(self._part.missing()) - sum(r.stop - r.at for r in self._runs)
            wanted = min(limits.CONNECTIONS - 1, -(-left // limits.MIN_SEGMENT_CHUNKS))
            while (
                not self._crowded
                and self._helpers < wanted
                and self._job.network.slots.take(self._url)
            ):
                self._helpers += 1
                threading.Thread(target=self._help, daemon=True).start()

    def _help(self) -> None:
        patience = Patience(lambda: self._part.count, lambda text: None, self._job.stopped)
        try:
            while not self._job.network.slots.wanted(self._url):
                run = self._take(waits=False)
                if run is None:
                    break
                self._bring(run, patience, helper=True)
        except AgainError as error:
            self._crowded = self._crowded or error.busy
        except (MbpmError, StoppedError):
            # the first reader meets the same, and says so
            pass
        except BaseException as error:
            self._crash = self._crash or error
        finally:
            self._job.network.slots.give(self._url)
            with self._changed:
                self._helpers -= 1
                self._changed.notify_all()

    def begin(self, run: _Run, index: int) -> Chunk | None:
        """The chunk to collect next; None for one that nobody needs from this reader."""
        if self._over:
            raise StoppedError
        with self._changed:
            taken = any(index in range(r.at, r.stop) for r in self._runs if r is not run)
            if taken or self._part.has(index) or index >= run.stop:
                return None
            run.at, run.partial = index, self._part.chunk(index)
            return run.partial

    def pass_over(self, run: _Run, index: int) -> None:
        """Note that a reader is beyond a chunk."""
        with self._changed:
            run.at, run.partial = max(run.at, index + 1), None
            self._changed.notify_all()

    def settle(self, run: _Run, chunk: Chunk) -> None:
        """Keep a full chunk, or count that it came wrong."""
        if not self._part.keep(chunk):
            self._wrong[chunk.index] += 1
            if self._wrong[chunk.index] > limits.WRONG_RETRIES:
                self._doubted.add(chunk.index)
            if len(self._doubted) >= limits.WRONG_CHUNKS:
                raise self._part.wrong(min(self._doubted), self._job.name)
        self.pass_over(run, chunk.index)


class _Reader:
    """Puts the bytes of one answer into chunks."""

    def __init__(self, ranges: _Ranges, run: _Run, offset: int, part: Part) -> None:
        self._ranges, self._run, self._offset, self._part = ranges, run, offset, part
        self._chunk = run.partial

    def feed(self, piece: bytes) -> bool:
        """Take the next bytes; true when the run is done.

        Raises:
            IntegrityError: there are more than the blob has, or too many are wrong.
        """
        data = memoryview(piece)
        while data:
            if self._offset >= self._part.blob.size:
                raise _other_size(self._offset + len(data), self._part.blob.size)
            index, within = divmod(self._offset, CHUNK_BYTES)
            if not within:
                self._chunk = self._ranges.begin(self._run, index)
            count = min(len(data), self._part.length(index) - within)
            if self._chunk is not None:
                self._chunk.add(data[:count])
            data = data[count:]
            self._offset += count
            if within + count == self._part.length(index):
                if self._chunk is not None:
                    self._ranges.settle(self._run, self._chunk)
                else:
                    self._ranges.pass_over(self._run, index)
                if self._run.at >= self._run.stop:
                    return True
        return False


def _other_size(found: int, expected: int) -> IntegrityError:
    return IntegrityError(f"has {found:,} bytes, and {expected:,} are expected")
