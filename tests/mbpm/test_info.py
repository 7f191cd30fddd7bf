"""`mbpm info`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mbpm import facts
from tests.support.cli import Cli


def test_an_empty_machine(cli: Cli) -> None:
    result = cli.ok("info")
    rows = dict(line.split(maxsplit=1) for line in result.out.splitlines())
    assert rows["home"] == f"{cli.home} (generation 0)"
    assert rows["python"] == ".".join(map(str, sys.version_info[:3]))
    assert rows["bases"] == rows["packs"] == "none"
    assert rows["disk"].startswith("0 B used, ")
    assert not cli.home.exists()


def test_what_is_installed(cli: Cli, registry: Path, publish: Callable[..., None]) -> None:
    publish("alpha", "1.1.0")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    found = cli.ok("info", "--json").json
    assert found["packs"] == [{"name": "alpha", "version": "1.1.0"}]
    assert found["bases"] == ["tiny"]
    assert found["generation"] == 1
    assert found["home"] == str(cli.home)
    assert found["cpu"]["threads"] >= 1
    blobs = sum(f.stat().st_size for f in (cli.home / "store" / "blobs").rglob("*") if f.is_file())
    assert found["disk"]["store"] == blobs
    assert found["disk"]["parts"] == 0
    assert "alpha 1.1.0" in cli.ok("info").out


def test_torch_is_named_and_not_imported(tmp_path: Path) -> None:
    script = (
        "import sys; from mbpm.__main__ import run; code = run(sys.argv[1:]); "
        "assert not {'torch', 'numpy', 'runtime'} & set(sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "--home", str(tmp_path / "home"), "info", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"torch": "' in done.stdout


def test_unfinished_downloads_are_counted_apart(cli: Cli) -> None:
    parts = cli.home / "store" / "parts"
    parts.mkdir(parents=True)
    (parts / "x.part").write_bytes(b"1234567")
    disk = cli.ok("info", "--json").json["disk"]
    assert (disk["store"], disk["parts"]) == (0, 7)


@pytest.mark.skipif(not hasattr(os, "link"), reason="needs hard links")
def test_a_file_of_two_names_is_counted_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").write_bytes(b"678")
    assert facts.used_bytes(tmp_path) == 8


def test_proxies_are_shown_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy.example.org:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    assert facts.proxies() == {
        "http": "http://proxy.example.org:3128",
        "https": "http://***@proxy.example.org:3128",
    }
