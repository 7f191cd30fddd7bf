"""The transfer benchmark measures what it says; how fast anything is, is not tested."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from bench import made_up, transfer
from bench.blob_server import serving
from bench.peers import program

DATA = bytes(range(256)) * 8000


def test_server_of_large_files(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(DATA)
    with serving(tmp_path) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        whole = client.get("/w")
        assert whole.content == DATA
        tag = whole.headers["etag"]
        part = client.get("/w", headers={"Range": "bytes=10-19", "If-Range": tag})
        assert (part.status_code, part.content) == (206, DATA[10:20])
        assert part.headers["content-range"] == f"bytes 10-19/{len(DATA)}"
        assert (
            client.get("/w", headers={"Range": "bytes=10-", "If-Range": '"x"'}).status_code == 200
        )
        assert client.head("/someone/x/resolve/main/w").headers["x-repo-commit"]
        assert client.get("/none").status_code == 404
        assert server.sent() == 2 * len(DATA) + 10
        server.limit(10**9)
        assert client.get("/w").content == DATA


def test_every_case_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transfer, "NOTHING_ROUNDS", 1)
    monkeypatch.setattr(transfer, "INSTALLED", "pip")
    monkeypatch.setattr(transfer, "program", lambda name: program(name) if name == "curl" else None)
    report = transfer.transfer(1, size=3_000_000)
    found = {(case.case, case.peer_name): case for case in report.cases}
    speed = "0.0 GB from loopback, whole process"
    assert found[speed, "uv pip install"].peer is None
    assert found[speed, "pip download"].ratio
    assert found["killed half-way: sent twice", "pip download"].ours >= 0
    assert found["install what is installed", "pip install"].peer
    assert found["install what is installed", "uv pip install"].peer is None
    assert "uv pip install: uv is not installed: `pip install uv`" in report.notes
    assert list((tmp_path / ".cache").iterdir()) == []


def test_made_up_wheel_is_one(tmp_path: Path) -> None:
    made_up.weights(tmp_path / made_up.FILE, 5000)
    made_up.wheel(tmp_path, tmp_path / made_up.FILE)
    assert made_up.WHEEL in (tmp_path / "simple" / "bench-weights" / "index.html").read_text()
