"""A hub of data sets on the loopback interface: what huggingface_hub asks, and no more."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "1234567890abcdef1234567890abcdef12345678"


@dataclass
class DatasetHub:
    """One data set, `someone/lease`, and what was asked."""

    files: dict[str, bytes]
    license: str | None = "cc-by-4.0"
    large: frozenset[str] = frozenset()
    """Files that are kept apart from Git, and known by SHA-256."""
    sent: dict[str, bytes] = field(default_factory=dict)
    """File -> what is sent in its place."""
    status: int = 200
    code: str | None = None
    """`X-Error-Code` of what is not 200."""
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def info(self) -> dict[str, Any]:
        """The answer about the data set."""
        return {
            "_id": "1",
            "id": "someone/lease",
            "sha": COMMIT,
            "private": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "cardData": {"license": self.license} if self.license else {},
            "siblings": [self._sibling(name) for name in self.files],
        }

    def _sibling(self, name: str) -> dict[str, Any]:
        data = self.files[name]
        found: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_digest(data)}
        if name in self.large:
            sha256 = hashlib.sha256(data).hexdigest()
            found["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 1}
        return found


def git_digest(data: bytes) -> str:
    """What `git hash-object` prints."""
    return hashlib.sha1(b"blob " + str(len(data)).encode() + b"\0" + data).hexdigest()


@contextlib.contextmanager
def serve_hub(hub: DatasetHub) -> Iterator[DatasetHub]:
    """Answer on a port of the loopback interface."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            before, _, rest = path.partition("/datasets/someone/lease/resolve/")
            name = rest.partition("/")[2]
            if hub.status != 200:
                self.reply(hub.status, b"", {"X-Error-Code": hub.code or ""})
            elif path.startswith("/api/datasets/someone/lease"):
                body = json.dumps(hub.info()).encode()
                self.reply(200, body, {"Content-Type": "application/json"})
            elif not before and name in hub.files:
                data = hub.files[name]
                etag = hashlib.sha256(data).hexdigest() if name in hub.large else git_digest(data)
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}
                self.reply(200, hub.sent.get(name, data), headers)
            else:
                self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})

        def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                if value:
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
