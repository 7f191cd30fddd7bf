"""Bases from Hugging Face repositories, against a hub on the loopback interface."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from registry_index.publish import publish_base
from specs.blobs import HubSource
from tests.support.cli import Cli
from tests.support.packs import tiny_base

DATA = random.Random(3).randbytes(200_000)
FILE = "w.gguf"
COMMIT = "1" * 40


class Hub:
    """Answers for one file of one repository."""

    def __init__(self) -> None:
        self.data = DATA
        self.status = 200
        self.requests: list[str] = []


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants

    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

        def do_HEAD(self) -> None:
            self.answer(b"")

        def do_GET(self) -> None:
            self.answer(hub.data)

        def answer(self, body: bytes) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            known = self.path == f"/someone/tiny/resolve/main/{FILE}"
            self.send_response(hub.status if known else 404)
            if not known:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("ETag", f'"{hashlib.sha256(hub.data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(hub.data) if known else 0))
            self.end_headers()
            if known and hub.status == 200:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    source = HubSource(repo="someone/tiny", file=FILE)
    root = tmp_path / "registry"
    publish_base(tiny_base(tmp_path / "files", weights=DATA, sources=(source,)), root)
    return root


def install(cli: Cli, root: Path, *options: str):
    return cli(*options, "base", "install", "tiny", "--registry", root, "--yes")


def test_downloads(cli: Cli, root: Path, hub: Hub, tmp_path: Path) -> None:
    result = install(cli, root)
    assert result.code == 0, result.err
    cli.ok("base", "verify")
    assert list((cli.home / "store" / "parts").iterdir()) == []
    assert not (tmp_path / "hub-cache").exists(), "no second copy in the user's cache"


def test_wrong_bytes(cli: Cli, root: Path, hub: Hub) -> None:
    hub.data = DATA[:-1] + b"?"
    result = install(cli, root)
    assert result.code == 5
    assert f"weights.gguf of base tiny from hf someone/tiny/{FILE}: chunk 0" in result.err
    hub.data = DATA
    assert install(cli, root).code == 0


def test_missing_file(cli: Cli, tmp_path: Path, hub: Hub) -> None:
    source = HubSource(repo="someone/tiny", file="other.gguf")
    publish_base(tiny_base(tmp_path / "f", weights=DATA, sources=(source,)), tmp_path / "r")
    result = install(cli, tmp_path / "r")
    assert result.code == 3
    assert "hf someone/tiny/other.gguf" in result.err


def test_offline_uses_the_cache_and_nothing_else(
    cli: Cli, root: Path, hub: Hub, tmp_path: Path
) -> None:
    result = install(cli, root, "--offline")
    assert result.code == 6
    assert f"(200.0 kB): hf someone/tiny/{FILE}" in result.err
    repo = tmp_path / "hub-cache" / "models--someone--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "snapshots" / COMMIT).mkdir(parents=True)
    (repo / "snapshots" / COMMIT / FILE).write_bytes(DATA)
    assert install(cli, root, "--offline").code == 0
    assert hub.requests == []
    cli.ok("base", "verify")
