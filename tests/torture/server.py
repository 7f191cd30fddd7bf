"""A web server in a process of its own that hands out folders and remembers every byte it sent."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_PIECE = 1 << 16


@dataclass(frozen=True)
class Sent:
    """Bytes of one file that one answer held."""

    path: str
    start: int
    stop: int


@dataclass(frozen=True)
class Server:
    """The running server."""

    url: str

    def sent(self) -> list[Sent]:
        """What was sent since this was asked last, whole answers and what there was of cut ones.

        Answers to processes that are dead are over once this returns.
        """
        with urllib.request.urlopen(f"{self.url}/-/sent") as answer:
            return [Sent(*row) for row in json.load(answer)]


@contextlib.contextmanager
def serve(folders: Mapping[str, Path]) -> Iterator[Server]:
    """Serve folders under the names they have in the mapping."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    address = listener.getsockname()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _serve(listener, folders, parent)
        finally:
            os._exit(0)
    listener.close()
    try:
        yield Server(f"http://127.0.0.1:{address[1]}")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _serve(listener: socket.socket, folders: Mapping[str, Path], parent: int) -> None:
    lock = threading.Condition()
    log: list[tuple[str, int, int]] = []
    active = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # a client that was killed half-way keeps nobody waiting
        timeout = 30

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

        def do_GET(self) -> None:
            if self.path == "/-/sent":
                self.close_connection = True
                with lock:
                    lock.wait_for(lambda: active == 1, timeout=20)
                    raw = json.dumps(log).encode()
                    log.clear()
                self._answer(200, len(raw), {})
                self.wfile.write(raw)
                return
            path = urllib.parse.urlsplit(self.path).path
            name, _, rest = path.lstrip("/").partition("/")
            file = folders.get(name, Path("/nowhere")) / rest
            if ".." in path or not file.is_file():
                self._answer(404, 0, {})
                return
            self._file(path, file)

        def _file(self, path: str, file: Path) -> None:
            total = file.stat().st_size
            tag = f'"{file.stat().st_mtime_ns:x}-{total:x}"'
            headers = {"ETag": tag}
            if self.headers.get("If-None-Match") == tag:
                self._answer(304, 0, headers)
                return
            start, stop, status = 0, total, 200
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if match and self.headers.get("If-Range") in (None, tag):
                start = int(match[1])
                stop = min(total, int(match[2]) + 1) if match[2] else total
                if start >= total:
                    self._answer(416, 0, {"Content-Range": f"bytes */{total}"})
                    return
                status = 206
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
            self._answer(status, stop - start, headers)
            sent = start
            try:
                with file.open("rb") as stream:
                    stream.seek(start)
                    while sent < stop:
                        piece = stream.read(min(_PIECE, stop - sent))
                        self.wfile.write(piece)
                        sent += len(piece)
            finally:
                with lock:
                    log.append((path, start, sent))

        def _answer(self, status: int, length: int, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(length)}.items():
                self.send_header(name, value)
            self.end_headers()

    class Counting(ThreadingHTTPServer):
        daemon_threads = True

        def process_request(self, request: Any, client_address: Any) -> None:
            nonlocal active
            with lock:
                active += 1
            super().process_request(request, client_address)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            nonlocal active
            try:
                super().process_request_thread(request, client_address)
            finally:
                with lock:
                    active -= 1
                    lock.notify_all()

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients are killed here all the time."""

        def service_actions(self) -> None:
            if os.getppid() != parent:
                os._exit(0)

    server = Counting(listener.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.serve_forever(0.05)
