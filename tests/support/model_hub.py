"""A Hugging Face Hub on the loopback interface: repositories as dictionaries of files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "c" * 40


@dataclass
class FakeHub:
    """What it serves, and what it was asked."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    status: int = 200
    code: str | None = None
    """Its `X-Error-Code`, with another status."""
    requests: list[str] = field(default_factory=list)
    revisions: tuple[str, ...] = ("main", COMMIT)

    def add(self, repo: str, folder: Path) -> None:
        """Serve the files of a folder."""
        self.repos[repo] = {f.name: f.read_bytes() for f in folder.iterdir()}


@contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[FakeHub]:
    """Let huggingface_hub ask this one."""
    from huggingface_hub import constants

    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            parts = self.path.split("?")[0].strip("/").split("/")
            if hub.status != 200:
                self.answer(hub.status, b"{}", {"X-Error-Code": hub.code} if hub.code else {})
            elif parts[:2] == ["api", "models"]:
                self.info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
            elif len(parts) > 4 and parts[2] == "resolve":
                data = hub.repos.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
                etag = hashlib.sha256(data or b"").hexdigest()
                if data is None:
                    self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                else:
                    self.answer(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            else:
                self.answer(404, b"", {})

        def info(self, repo: str, revision: str) -> None:
            files = hub.repos.get(repo)
            if files is None:
                self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            if revision not in hub.revisions:
                self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                return
            said = {
                "id": repo,
                "sha": COMMIT,
                "siblings": [{"rfilename": n, "size": len(d)} for n, d in files.items()],
            }
            self.answer(200, json.dumps(said).encode(), {"Content-Type": "application/json"})

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
