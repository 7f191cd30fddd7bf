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
from tests.support.servers import Site, serve

DATA = random.Random(3).randbytes(200_000)
FILE = "w.gguf"
COMMIT = "1" * 40


class Hub:
    """Answers for one file of one repository."""

    def __init__(self) -> None:
        self.data = DATA
        self.status = 200
        self.code: str | None = None
        """Its `X-Error-Code`."""
        self.elsewhere: str | None = None
        """Where it sends people for the file."""
        self.requests: list[str] = []
        self.tokens: list[str | None] = []


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
            hub.tokens.append(self.headers.get("Authorization"))
            if hub.elsewhere:
                self.send_response(302)
                self.send_header("Location", hub.elsewhere)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            known = self.path == f"/someone/tiny/resolve/main/{FILE}"
            self.send_response(hub.status if known else 404)
            if not known:
                self.send_header("X-Error-Code", "EntryNotFound")
            if hub.code:
                self.send_header("X-Error-Code", hub.code)
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


def test_token_stays_with_the_hub(
    cli: Cli, root: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serve(Site(files={"/far": DATA})) as site:
        hub.elsewhere = site.url + "/far"
        assert install(cli, root).code == 0
        assert hub.tokens == ["Bearer hf_secret"]
        assert "authorization" not in site.headers[0]


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "told"),
    [
        (403, "GatedRepo", 7, "accepted licence"),
        (401, "RepoNotFound", 3, "401"),
        (401, None, 7, "401"),
        (404, "RevisionNotFound", 3, "404"),
    ],
)
def test_refused(
    cli: Cli, root: Path, hub: Hub, status: int, code: str | None, exit_code: int, told: str
) -> None:
    hub.status, hub.code = status, code
    result = install(cli, root)
    assert result.code == exit_code
    assert told in result.err


def test_hub_switched_off(cli: Cli, root: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    result = install(cli, root)
    assert result.code == 6
    assert "`HF_HUB_OFFLINE`" in result.err
    assert hub.requests == []


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
