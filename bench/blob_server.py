"""A web server for large files, in a process of its own: `python -m bench.blob_server FOLDER`.

It answers ranges and conditional ranges, sends with `sendfile` so that it takes little of the
machine, and counts what it sends. It knows as much of the Hugging Face hub as `hf download` asks
for. `/.sent` tells the bytes of bodies so far, `/.rate/N` makes it send N bytes a second (0: all it
can).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

PIECE = 1 << 20
HUB = re.compile(r"/(?:api/models/)?someone/[\w-]+/resolve/\w+/(.+)")
COMMIT = "1" * 40


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    # else what follows the headers waits for their acknowledgement
    disable_nagle_algorithm = True
    root: ClassVar[Path]
    sent: ClassVar[int] = 0
    rate: ClassVar[int] = 0
    lock: ClassVar[threading.Lock] = threading.Lock()
    tags: ClassVar[dict[Path, str]] = {}

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""

    def do_HEAD(self) -> None:
        """Headers only."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer one request."""
        path = self.path.partition("?")[0]
        if path == "/.sent":
            self._text(str(Handler.sent).encode())
        elif path.startswith("/.rate/"):
            Handler.rate = int(path.rpartition("/")[2])
            self._text(b"")
        else:
            hub = HUB.fullmatch(path)
            name = hub[1] if hub else path.lstrip("/")
            file = self.root / name / ("index.html" if path.endswith("/") else "")
            if file.is_file():
                self._file(file, of_hub=hub is not None)
            else:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

    def _text(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, file: Path, *, of_hub: bool) -> None:
        size = file.stat().st_size
        tag = f'"{self._digest(file)}"' if of_hub else f'"{file.stat().st_mtime_ns:x}-{size:x}"'
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if self.headers.get("If-Range") not in (None, tag):
            asked = None
        start, stop = 0, size
        if asked:
            start, stop = int(asked[1]), min(size, int(asked[2]) + 1 if asked[2] else size)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        kind = "text/html" if file.suffix == ".html" else "application/octet-stream"
        self.send_header("Content-Type", kind)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", tag)
        if of_hub:
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(ConnectionError), file.open("rb") as stream:
                self._send(stream.fileno(), start, stop)

    def _digest(self, file: Path) -> str:
        if file not in self.tags:
            with file.open("rb") as stream:
                whole = hashlib.sha256()
                for piece in iter(lambda: stream.read(PIECE), b""):
                    whole.update(piece)
            self.tags[file] = whole.hexdigest()
        return self.tags[file]

    def _send(self, source: int, start: int, stop: int) -> None:
        target = self.connection.fileno()
        begin, first = time.monotonic(), start
        while start < stop:
            count = os.sendfile(target, source, start, min(PIECE, stop - start))
            start += count
            with Handler.lock:
                Handler.sent += count
            if Handler.rate:
                due = begin + (start - first) / Handler.rate
                time.sleep(max(0.0, due - time.monotonic()))


class Server(ThreadingHTTPServer):
    """Whoever hangs up in the middle is no news here."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet."""


class BlobServer:
    """A running server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def sent(self) -> int:
        """Bytes of bodies so far."""
        return int(self._get("/.sent"))

    def limit(self, bytes_per_second: int) -> None:
        """Send so many bytes a second on each connection; 0 for all it can."""
        self._get(f"/.rate/{bytes_per_second}")

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path) as answer:  # noqa: S310
            body: bytes = answer.read()
        return body


@contextmanager
def serving(root: Path) -> Iterator[BlobServer]:
    """Serve a folder on the loopback interface until the block ends."""
    command = [sys.executable, "-m", "bench.blob_server", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield BlobServer(process.stdout.readline().strip())
        finally:
            process.terminate()


def main(root: Path) -> None:
    """Serve until killed; the first line of output is the address."""
    Handler.root = root
    server = Server(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
