"""Web servers on the loopback interface that misbehave on request."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import socket
import ssl
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What a server hands out, and how badly."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    """Whether it understands ranges."""
    etag: str | None = None
    lies: int = 0
    """How many bytes later than asked for a range begins."""
    cuts: list[int] = field(default_factory=list)
    """For the next answers in turn: after how many bytes of the body the connection breaks."""
    statuses: list[int | tuple[int, dict[str, str]]] = field(default_factory=list)
    """For the next answers in turn: a status to send instead of the file, with headers perhaps."""
    rots: list[int] = field(default_factory=list)
    """For the next answers in turn: the offset in the file of a byte that is sent wrong."""
    pauses: list[float] = field(default_factory=list)
    """For the next answers in turn: seconds between the headers and the body."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Path -> the address it sends people to."""
    length: bool = True
    """Whether it says how long a body is; else the end of the connection tells."""
    modified: str | None = None
    """The `Last-Modified` of everything."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Range header) of every request so far."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """All headers of every request so far, their names in lower case."""
    tunnel: int = 0
    """The port on this machine that `CONNECT` leads to."""
    most: int = 0
    """The most requests that were answered at the same time."""
    sent: int = 0
    """Bytes of bodies sent so far."""
    url: str = ""


@contextlib.contextmanager
def serve(site: Site | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Serve a site until the block ends; `site.url` is its address, without a last slash."""
    site = site or Site()
    busy: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            site.requests.append((self.path, wanted))
            site.headers.append({k.lower(): v for k, v in self.headers.items()})
            busy.append(self.path)
            site.most = max(site.most, len(busy))
            try:
                self._choose(wanted)
            finally:
                busy.remove(self.path)

        def do_CONNECT(self) -> None:
            """Be a proxy: whatever was asked for, lead to `site.tunnel`."""
            site.requests.append((self.path, None))
            site.headers.append({k.lower(): v for k, v in self.headers.items()})
            if site.statuses:
                self._choose(None)
                return
            with socket.create_connection(("127.0.0.1", site.tunnel)) as far:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_pump, args=(far, self.connection), daemon=True)
                back.start()
                _pump(self.connection, far)
            self.close_connection = True

        def _choose(self, wanted: str | None) -> None:
            data = site.files.get(self.path)
            tag = self.headers.get("If-None-Match")
            since = self.headers.get("If-Modified-Since")
            if site.statuses:
                status = site.statuses.pop(0)
                code, headers = (status, {}) if isinstance(status, int) else status
                self._answer(code, b"", headers)
            elif self.path in site.redirects:
                self._answer(302, b"", {"Location": site.redirects[self.path]})
            elif (tag and tag == site.etag) or (since and since == site.modified):
                self._answer(304, b"", {"ETag": site.etag} if site.etag else {})
            elif data is None:
                self._answer(404, b"", {})
            else:
                self._file(data, wanted)

        def _file(self, data: bytes, wanted: str | None) -> None:
            headers = {"ETag": site.etag} if site.etag else {}
            if site.modified:
                headers["Last-Modified"] = site.modified
            if site.rots:
                at = site.rots.pop(0)
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
            stale = self.headers.get("If-Range") not in (None, site.etag)
            if match is None or not site.ranges or stale:
                self._answer(200, data, headers)
                return
            start, stop = int(match[1]), int(match[2]) + 1 if match[2] else len(data)
            if start >= len(data):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            start, stop = start + site.lies, stop + site.lies
            part = data[start:stop]
            headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
            self._answer(206, part, headers)

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            if site.length or not body:
                self.send_header("Content-Length", str(len(body)))
            else:
                self.close_connection = True
            for name, value in headers.items():
                self.send_header(name, value)
            kind = "text/html" if self.path.endswith("/") else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.end_headers()
            if site.pauses and body:
                time.sleep(site.pauses.pop(0))
            if site.cuts and body:
                body = body[: site.cuts.pop(0)]
                self.close_connection = True
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)
                site.sent += len(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    site.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def wheel(package: str, version: str, members: dict[str, bytes]) -> bytes:
    """A wheel with these members."""
    name = package.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    documents = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in members.items():
            archive.writestr(path, data)
        for path, text in documents.items():
            archive.writestr(path, text)
    return stream.getvalue()


def add_to_index(
    site: Site, package: str, version: str, data: bytes, end: str = "-py3-none-any.whl"
) -> str:
    """Offer a wheel in a simple index under `/simple/`; returns the wheel's path."""
    file = f"{package.replace('-', '_')}-{version}{end}"
    path = f"/files/{file}"
    site.files[path] = data
    digest = hashlib.sha256(data).hexdigest()
    site.files[f"/simple/{package}/"] = (
        f'<!DOCTYPE html><a href="{site.url}{path}#sha256={digest}">{file}</a>'.encode()
    )
    return path
