"""A plain web server for a folder on the loopback interface, with ETag, tokens and a record."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Static:
    """What the server hands out, and what it was asked."""

    root: Path
    etags: bool = True
    """Whether it knows entity tags; else only modification times."""
    token: str | None = None
    """The token it wants."""
    missing: int = 404
    """How it says that there is no such file."""
    changed: dict[str, bytes] = field(default_factory=dict)
    """Path -> what to send in its place."""
    down: bool = False
    """Whether it answers 503 to everything."""
    asked: list[str] = field(default_factory=list)
    """Paths, in the order they were asked for."""
    authorization: list[str | None] = field(default_factory=list)
    """What came with each of them."""
    sent: int = 0
    """Bytes of bodies."""
    url: str = ""

    def forget(self) -> None:
        """Begin the record anew."""
        self.asked.clear()
        self.authorization.clear()
        self.sent = 0


@contextlib.contextmanager
def serve(root: Path, **options: object) -> Iterator[Static]:
    """Serve a folder until the block ends."""
    site = Static(root, **options)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

        def do_GET(self) -> None:
            site.asked.append(self.path)
            site.authorization.append(self.headers.get("Authorization"))
            file = site.root / self.path.lstrip("/")
            if site.down:
                self._answer(503)
            elif site.token and self.headers.get("Authorization") != f"Bearer {site.token}":
                self._answer(401)
            elif self.path in site.changed:
                self._answer(200, site.changed[self.path])
            elif not file.is_file():
                self._answer(site.missing)
            else:
                self._file(file)

        def _file(self, file: Path) -> None:
            data = file.read_bytes()
            time = file.stat().st_mtime
            headers = {"Last-Modified": formatdate(time, usegmt=True)}
            since = self.headers.get("If-Modified-Since")
            if site.etags:
                headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
            same = site.etags and self.headers.get("If-None-Match") == headers["ETag"]
            if since:
                same = same or int(time) <= parsedate_to_datetime(since).timestamp()
            self._answer(304 if same else 200, b"" if same else data, headers)

        def _answer(
            self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            # before the client can know of it
            site.sent += len(body)
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up is none of ours."""

    server = Server(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
