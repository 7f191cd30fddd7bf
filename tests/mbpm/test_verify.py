"""`mbpm verify`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mbpm.home import Home
from tests.support.cli import Cli

Publish = Callable[..., None]


@pytest.fixture
def one(cli: Cli, registry: Path, publish: Publish) -> Cli:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    return cli


def damage(file: Path, data: bytes | None = None) -> None:
    """Overwrite a file with a bit changed, or with `data`, as a bad disk or an editor would."""
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(bytes(raw) if data is None else data)


def test_all_is_well(one: Cli) -> None:
    result = one.ok("verify")
    assert [line.split()[:3] for line in result.out.splitlines()] == [
        ["ok", "alpha", "1.0.0"],
        ["ok", "base", "tiny"],
    ]
    document = one.ok("verify", "alpha", "--json").json
    assert document["ok"] is True
    assert [c["name"] for c in document["checks"]] == ["alpha"]


def test_nothing_installed(cli: Cli) -> None:
    assert "nothing is installed" in cli.ok("verify").err


def test_unknown_pack(one: Cli) -> None:
    assert "did you mean `alpha`?" in one("verify", "alpa").err


@pytest.mark.parametrize("name", ["adapter.safetensors", "README.md", "manifest.json"])
def test_changed_file_is_named(one: Cli, name: str) -> None:
    (folder,) = Home(one.home).pack_dirs()
    damage(folder / name)
    result = one("verify")
    assert result.code == 5
    assert "damaged  alpha 1.0.0" in result.out
    assert "ok       base tiny" in result.out
    assert "`mbpm install alpha --reinstall` mends it" in result.err
    document = one("verify", "--json").json
    assert document["ok"] is False
    assert document["error"]["exit_code"] == 5
    assert document["checks"][0]["problems"]


@pytest.mark.parametrize("name", ["adapter.safetensors", "README.md", "manifest.json"])
def test_the_hint_works(one: Cli, registry: Path, name: str) -> None:
    (folder,) = Home(one.home).pack_dirs()
    damage(folder / name)
    one.ok("install", "alpha", "--reinstall", "--yes", "--registry", registry)
    one.ok("verify")


def test_truncated_and_missing_files(one: Cli) -> None:
    (folder,) = Home(one.home).pack_dirs()
    file = folder / "adapter.safetensors"
    damage(file, file.read_bytes()[:-1])
    assert "adapter.safetensors: is truncated" in one("verify").out
    file.unlink()
    assert "adapter.safetensors: is missing" in one("verify").out


def test_damaged_base(one: Cli, registry: Path) -> None:
    home = Home(one.home)
    damage(home.base_dir(home.default_base()) / "weights.gguf")
    result = one("verify")
    assert result.code == 5
    assert "weights.gguf: chunk 0 has the wrong digest" in result.out
    assert "`mbpm base install tiny --reinstall`" in result.err
    assert one("base", "verify").code == 5
    one.ok("base", "install", "tiny", "--reinstall", "--yes", "--registry", registry)
    one.ok("base", "verify", "tiny")
