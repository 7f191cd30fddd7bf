"""A small static web server in a process of its own: `python -m bench.web FOLDER`.

It answers conditional requests by ETag (time and size of a file, as nginx does), keeps connections
open, and tells at `/.sent` how many requests and bytes of bodies there were.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    root: ClassVar[Path]
    requests: ClassVar[int] = 0
    sent: ClassVar[int] = 0

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        """Answer one request."""
        path = self.path.partition("?")[0]
        if path == "/.sent":
            document = {"requests": Handler.requests, "bytes": Handler.sent}
            self._answer(HTTPStatus.OK, json.dumps(document).encode(), "")
            return
        Handler.requests += 1
        file = self.root / path.lstrip("/")
        if path.endswith("/"):
            file = file / "index.html"
        try:
            status = file.stat()
            etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
            if self.headers.get("If-None-Match") == etag:
                self._answer(HTTPStatus.NOT_MODIFIED, b"", etag)
                return
            data = file.read_bytes()
        except OSError:
            self._answer(HTTPStatus.NOT_FOUND, b"", "")
            return
        Handler.sent += len(data)
        self._answer(HTTPStatus.OK, data, etag)

    def _answer(self, status: HTTPStatus, body: bytes, etag: str) -> None:
        kind = "text/html" if self.path.endswith("/") else "application/octet-stream"
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
        if etag:
            head += f"ETag: {etag}\r\n"
        if status != HTTPStatus.NOT_MODIFIED:
            head += f"Content-Length: {len(body)}\r\n"
        # in one piece: a second small packet would wait for the first one's acknowledgement
        self.wfile.write(f"{head}\r\n".encode() + body)


class Web:
    """A running server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def count(self) -> tuple[int, int]:
        """Requests and bytes of bodies so far."""
        with urllib.request.urlopen(f"{self.url}/.sent") as answer:  # noqa: S310
            value = json.load(answer)
        return value["requests"], value["bytes"]


@contextmanager
def serving(root: Path) -> Iterator[Web]:
    """Serve a folder on the loopback interface until the block ends."""
    command = [sys.executable, "-m", "bench.web", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Web(process.stdout.readline().strip())
        finally:
            process.terminate()


def main(root: Path) -> None:
    """Serve until killed; the first line of output is the address."""
    Handler.root = root
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
