"""A web server that follows a schedule of misbehaviour, drawn from a seed."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate

FAULTS = (
    "reset",
    "truncated",
    "stall",
    "trickle",
    "silent",
    "garbage",
    "wrong range",
    "shifted bytes",
    "wrong content",
    "changed tag",
    "weak tag",
    "no ranges",
    "no length",
    "chunked",
    "less than asked",
    "too much",
    "wrong size",
    "compressed",
    "redirect",
    "416",
    "403",
    "404",
    "429",
    "429 date",
    "500",
    "503",
)


@dataclass
class Misbehaving:
    """A server and what happened on it."""

    files: Mapping[str, bytes]
    seed: int
    share: float
    """How many answers in a hundred percent have a fault."""
    faults: tuple[str, ...] = FAULTS
    url: str = ""
    log: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """(path, Range header, fault) of every request."""
    patience: float = 0.6
    """How long a stalled connection is held open."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def draw(self) -> tuple[str | None, random.Random]:
        """The fault of the next answer, if it has one, and the dice for its details."""
        with self._lock:
            dice = random.Random(self._random.random())
        return (dice.choice(self.faults) if dice.random() < self.share else None), dice


@contextlib.contextmanager
def misbehave(server: Misbehaving) -> Iterator[Misbehaving]:
    """Serve until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def accept() -> None:
        while not server.stopped.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                connection, _ = listener.accept()
                threading.Thread(target=_Connection(server, connection).serve, daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        thread.join()
        listener.close()


class _Connection:
    def __init__(self, server: Misbehaving, connection: socket.socket) -> None:
        self._server, self._socket = server, connection

    def serve(self) -> None:
        with contextlib.suppress(OSError), self._socket:
            self._socket.settimeout(5)
            while not self._server.stopped.is_set():
                head = b""
                while b"\r\n\r\n" not in head:
                    more = self._socket.recv(4096)
                    if not more:
                        return
                    head += more
                if not self._answer(head.decode("latin-1")):
                    return

    def _answer(self, head: str) -> bool:
        """Answer one request; whether the connection may be used again."""
        path = head.split(" ")[1]
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        fault, dice = self._server.draw()
        self._server.log.append((path, headers.get("range"), fault))
        data = self._server.files[path.partition("?")[0]]
        if fault == "silent":
            return False
        if fault == "garbage":
            self._socket.sendall(bytes(dice.randbytes(40)) + b"\r\n\r\n")
            return False
        if fault == "redirect":
            return self._status(302, {"Location": f"{path.partition('?')[0]}?{dice.random()}"})
        if fault and fault[:3].isdigit():
            return self._refusal(fault, len(data))
        return self._file(data, headers, fault, dice)

    def _refusal(self, fault: str, size: int) -> bool:
        extra = {}
        if fault == "429":
            extra["Retry-After"] = "0"
        if fault == "429 date":
            extra = {"Retry-After": formatdate(time.time() - 5, usegmt=True)}
        if fault == "416":
            extra["Content-Range"] = f"bytes */{size}"
        return self._status(int(fault[:3]), extra)

    def _status(self, status: int, headers: dict[str, str]) -> bool:
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        self._socket.sendall(
            f"HTTP/1.1 {status} So be it\r\nContent-Length: 0\r\n{lines}\r\n".encode()
        )
        return True

    def _file(
        self, data: bytes, asked: dict[str, str], fault: str | None, dice: random.Random
    ) -> bool:
        tag = '"one"'
        if fault == "changed tag":
            tag = f'"{dice.random()}"'
        if fault == "weak tag":
            tag = 'W/"one"'
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.get("range", ""))
        stale = asked.get("if-range") not in (None, tag)
        if fault == "wrong content":
            at = dice.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        if fault == "wrong size":
            data = data + b"more" if dice.random() < 0.5 else data[:-1]
        headers = {"ETag": tag}
        if match is None or stale or fault == "no ranges":
            status, body = 200, data
        else:
            start, stop = int(match[1]), int(match[2]) + 1 if match[2] else len(data)
            if fault == "less than asked":
                stop = dice.randrange(start + 1, max(stop, start + 2))
            body = data[start:stop]
            if fault == "wrong range":
                start += dice.choice([-1, 1, 4096])
            if fault == "shifted bytes":
                body = body[1:] + b"?"
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(data)}"
            status = 206
        if fault == "compressed":
            headers["Content-Encoding"] = "gzip"
        if fault == "too much":
            body += b"much more"
        return self._send(status, headers, body, fault, dice)

    def _send(
        self,
        status: int,
        headers: dict[str, str],
        body: bytes,
        fault: str | None,
        dice: random.Random,
    ) -> bool:
        if fault == "chunked":
            headers["Transfer-Encoding"] = "chunked"
            half = len(body) // 2
            body = b"".join(
                f"{len(p):x}\r\n".encode() + p + b"\r\n" for p in (body[:half], body[half:], b"")
            )
        elif fault != "no length":
            headers["Content-Length"] = str(len(body))
        else:
            headers["Connection"] = "close"
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        self._socket.sendall(f"HTTP/1.1 {status} So be it\r\n{lines}\r\n".encode())
        cut = dice.randrange(len(body)) if body else 0
        if fault in ("reset", "truncated", "stall", "trickle"):
            self._socket.sendall(body[:cut])
            self._break(fault, body[cut:])
            return False
        self._socket.sendall(body)
        return fault != "no length"

    def _break(self, fault: str, rest: bytes) -> None:
        if fault == "reset":
            # closing with nothing to linger for sends a reset
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault == "stall":
            self._server.stopped.wait(self._server.patience)
        elif fault == "trickle":
            end = time.monotonic() + self._server.patience
            while rest and time.monotonic() < end and not self._server.stopped.wait(0.05):
                self._socket.sendall(rest[:1])
                rest = rest[1:]
