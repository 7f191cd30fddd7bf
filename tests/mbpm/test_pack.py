"""`mbpm pack`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from registry_index.archive import read_archive
from tests.support.cli import Cli
from tests.support.packs import FINGERPRINT, MODULES, RANK, adapter_tensors, pack_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pack_folder(tmp_path / "legal-pack", "legal", "1.2.0")


def test_makes_an_archive_and_shows_what_is_in_it(
    cli: Cli, registry: Path, folder: Path, tmp_path: Path
) -> None:
    result = cli.ok("pack", folder, "--output", tmp_path / "out", "--registry", registry)
    archive = tmp_path / "out" / "legal-1.2.0.mbpack"
    manifest = read_archive(archive).manifest
    lines = result.out.splitlines()
    assert lines[0] == str(archive)
    assert lines[1] == f"digest   sha256:{manifest.digest()}"
    assert lines[2] == "attach   4 of 4 modules of tiny"
    for blob in manifest.blobs:
        assert any(blob.path in line and blob.sha256[:16] in line for line in lines)
    assert result.err == ""


def test_json(cli: Cli, registry: Path, folder: Path, tmp_path: Path) -> None:
    arguments = ("pack", folder, "--output", tmp_path, "--registry", registry, "--json")
    document = cli.ok(*arguments).json
    manifest = read_archive(Path(document["archive"])).manifest
    assert document["manifest"] == manifest.digest()
    assert document["attach"] == {"base": "tiny", "modules": 4, "expected": len(MODULES)}
    assert [f["path"] for f in document["files"]] == [b.path for b in manifest.blobs]
    assert document["archive_size"] == Path(document["archive"]).stat().st_size
    assert document == cli.ok(*arguments).json


def test_writes_here_by_default_and_can_be_repeated(
    cli: Cli, registry: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for _ in range(2):
        assert "legal-1.2.0.mbpack" in cli.ok("pack", ".", "--registry", registry).out
    assert (folder / "legal-1.2.0.mbpack").is_file()


def test_the_archive_installs_on_another_home(
    cli: Cli, registry: Path, folder: Path, tmp_path: Path
) -> None:
    cli.ok("pack", folder, "--output", tmp_path, "--registry", registry)
    archive = tmp_path / "legal-1.2.0.mbpack"
    cli.ok("install", archive, "--registry", registry, "--yes")
    assert cli.installed() == {"legal": "1.2.0"}


def test_the_installed_base_is_proof_enough(
    cli: Cli, registry: Path, folder: Path, tmp_path: Path
) -> None:
    refused = cli("pack", folder, "--output", tmp_path)
    assert refused.code == 3
    assert "base `tiny`" in refused.err
    cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    assert "4 of 4 modules" in cli.ok("pack", folder, "--output", tmp_path).out


def test_what_does_not_attach_is_refused(cli: Cli, registry: Path, tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal", tensors=adapter_tensors(rank=RANK + 1))
    result = cli("pack", folder, "--output", tmp_path / "out", "--registry", registry)
    assert result.code == 5
    assert result.err.startswith("error: ")
    assert "has shape" in result.err
    assert not list(tmp_path.rglob("*.mbpack"))


def test_a_pack_for_another_base_is_refused(cli: Cli, registry: Path, tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal", fingerprint="c" * 64)
    result = cli("pack", folder, "--output", tmp_path, "--registry", registry)
    assert result.code == 5
    assert "c" * 12 in result.err
    assert FINGERPRINT[:12] in result.err
    assert "\n\nhint: `mbpm base list`" in result.err


def test_no_pack_folder(cli: Cli, tmp_path: Path) -> None:
    result = cli("pack", tmp_path)
    assert result.code == 3
    assert "it has no pack.toml" in result.err
    assert "\n\nhint: make one with `mbpm train" in result.err


def test_an_unknown_key_is_named_with_its_file(cli: Cli, folder: Path) -> None:
    file = folder / "pack.toml"
    file.write_text('colour = "blue"\n' + file.read_text())
    result = cli("pack", folder)
    assert result.code == 5
    assert f"{file}: unknown key `colour`" in result.err


def test_torch_is_not_imported(folder: Path, registry: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from mbpm.__main__ import run; code = run(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    arguments = ["pack", folder, "--registry", registry, "--output", tmp_path]
    command = [sys.executable, "-c", script, "--home", tmp_path / "home", *arguments]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
