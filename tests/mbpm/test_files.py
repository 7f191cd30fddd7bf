"""`mbpm files`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli

Publish = Callable[..., None]


@pytest.fixture
def alpha(cli: Cli, registry: Path, publish: Publish) -> Cli:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    return cli


def test_every_file_with_its_digest(alpha: Cli) -> None:
    document = alpha.ok("files", "alpha", "--json").json
    assert (document["kind"], document["name"], document["version"]) == ("pack", "alpha", "1.0.0")
    names = [Path(f["path"]).name for f in document["files"]]
    assert names == [
        "manifest.json",
        *("README.md", "adapter.safetensors", "evals.json", "routing.safetensors"),
    ]
    for file in document["files"]:
        raw = Path(file["path"]).read_bytes()
        assert len(raw) == file["size"]
        assert hashlib.sha256(raw).hexdigest() == file["sha256"]
        assert file["present"] is True
        assert Path(file["path"]).parent == Path(document["folder"])


def test_for_people(alpha: Cli) -> None:
    lines = alpha.ok("files", "alpha").out.splitlines()
    assert lines[0].split() == ["SIZE", "SHA256", "PATH"]
    assert len(lines) == 6
    assert all(Path(line.split()[-1]).is_file() for line in lines[1:])


def test_a_base(alpha: Cli) -> None:
    document = alpha.ok("files", "tiny", "--json").json
    assert (document["kind"], document["version"]) == ("base", None)
    assert [Path(f["path"]).name for f in document["files"]] == ["card.json", "weights.gguf"]


def test_what_is_missing_is_said(alpha: Cli) -> None:
    document = alpha.ok("files", "alpha", "--json").json
    Path(document["folder"], "README.md").unlink()
    result = alpha.ok("files", "alpha")
    assert "README.md: is missing" in result.err
    assert "`mbpm install alpha --reinstall`" in result.err
    again = alpha.ok("files", "alpha", "--json").json
    assert [f["present"] for f in again["files"]] == [True, False, True, True, True]


def test_a_damaged_manifest(alpha: Cli) -> None:
    digest = alpha.ok("list", "--json").json["packs"][0]["manifest"]
    file = alpha.home / "store" / "blobs" / "sha256" / digest[:2] / digest
    file.chmod(0o600)
    file.write_text("{}")
    assert alpha("files", "alpha").code == 5


def test_not_installed(alpha: Cli) -> None:
    result = alpha("files", "alpa")
    assert result.code == 3
    assert "did you mean `alpha`?" in result.err
