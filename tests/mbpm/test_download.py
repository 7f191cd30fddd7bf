"""`mbpm download`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from registry_index.archive import read_archive
from tests.support.cli import Cli

Publish = Callable[..., None]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "stick"


def test_an_archive_and_nothing_installed(
    cli: Cli, registry: Path, publish: Publish, out: Path, tmp_path: Path
) -> None:
    publish("alpha")
    publish("alpha", "1.2.0")
    result = cli.ok("download", "alpha", "--registry", registry, "--output", out)
    file = out / "alpha-1.2.0.mbpack"
    assert result.out.startswith(f"download   alpha 1.2.0 -> {file} (")
    assert [f.name for f in out.iterdir()] == ["alpha-1.2.0.mbpack"]
    assert read_archive(file).manifest.version == "1.2.0"
    assert cli.installed() == {}
    assert not (cli.home / "store").exists()
    other = Cli(tmp_path / "other")
    other.ok("--offline", "install", file, "--registry", registry, "--yes")
    assert other.installed() == {"alpha": "1.2.0"}


def test_the_same_bytes_as_the_author_packs(
    cli: Cli, registry: Path, publish: Publish, out: Path, tmp_path: Path
) -> None:
    publish("alpha")
    cli.ok("download", "alpha", "--registry", registry, "--output", out)
    folder = tmp_path / "made" / "alpha-1.0.0"
    cli.ok("pack", folder, "--output", tmp_path / "packed", "--registry", registry)
    packed = tmp_path / "packed" / "alpha-1.0.0.mbpack"
    assert (out / packed.name).read_bytes() == packed.read_bytes()


def test_a_version_that_is_named(cli: Cli, registry: Path, publish: Publish, out: Path) -> None:
    publish("alpha")
    publish("alpha", "2.0.0")
    cli.ok("download", "alpha@1", "--registry", registry, "--output", out)
    assert [f.name for f in out.iterdir()] == ["alpha-1.0.0.mbpack"]


def test_what_it_requires(cli: Cli, registry: Path, publish: Publish, out: Path) -> None:
    publish("words")
    publish("tone")
    publish("letters", requires={"words": "1"}, recommends={"tone": "*"})
    arguments = ["download", "letters", "--registry", registry, "--output", out]
    cli.ok(*arguments)
    assert [f.name for f in out.iterdir()] == ["letters-1.0.0.mbpack"]
    cli.ok(*arguments, "--with-requires", "--no-recommends")
    assert sorted(f.name for f in out.iterdir()) == ["letters-1.0.0.mbpack", "words-1.0.0.mbpack"]
    cli.ok(*arguments, "--with-requires")
    assert (out / "tone-1.0.0.mbpack").is_file()


def test_for_another_machine(cli: Cli, registry: Path, publish: Publish, out: Path) -> None:
    """Neither what is required nor this machine's hardware stands in the way."""
    publish("big", requires={"__vram": ">=80", "never-there": "1"})
    cli.ok("download", "big", "--registry", registry, "--output", out)
    assert (out / "big-1.0.0.mbpack").is_file()
    result = cli("download", "big", "--registry", registry, "--output", out, "--with-requires")
    assert result.code in (3, 4)
    assert "never-there" in result.err


def test_dry_run_writes_nothing(cli: Cli, registry: Path, publish: Publish, out: Path) -> None:
    publish("alpha")
    result = cli.ok("download", "alpha", "--registry", registry, "-o", out, "-s", "--json")
    document = result.json
    assert document["written"] is False
    (pack,) = document["packs"]
    assert (pack["name"], pack["version"], pack["registry"]) == ("alpha", "1.0.0", str(registry))
    assert pack["file"] == str(out / "alpha-1.0.0.mbpack")
    assert document["fetch_bytes"] == pack["size"]
    assert not out.exists()


def test_what_the_store_holds_is_not_fetched(
    cli: Cli, registry: Path, publish: Publish, out: Path
) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    for blob in (registry / "blobs").rglob("*"):
        manifest = cli.ok("list", "--json").json["packs"][0]["manifest"]
        if blob.is_file() and blob.name != manifest:
            blob.unlink()
    document = cli.ok("download", "alpha", "--output", out, "--json").json
    assert document["fetch_bytes"] == 0
    assert read_archive(out / "alpha-1.0.0.mbpack").manifest.name == "alpha"


def test_an_archive_that_is_there_is_used_again(
    cli: Cli, registry: Path, publish: Publish, out: Path
) -> None:
    publish("alpha")
    arguments = ["download", "alpha", "--registry", registry, "--output", out]
    cli.ok(*arguments)
    before = (out / "alpha-1.0.0.mbpack").read_bytes()
    index = {p for p in (registry / "blobs").rglob("*") if p.is_file()}
    manifest = cli.ok(*arguments, "--json").json["packs"][0]["manifest"]
    for blob in index:
        if blob.name != manifest:
            blob.unlink()
    cli.ok(*arguments)
    assert (out / "alpha-1.0.0.mbpack").read_bytes() == before
    assert [f.name for f in out.iterdir()] == ["alpha-1.0.0.mbpack"]


def test_damaged_bytes_leave_no_archive(
    cli: Cli, registry: Path, publish: Publish, out: Path
) -> None:
    publish("alpha")
    for blob in (registry / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes()[:2] == b"# ":
            blob.chmod(0o600)
            blob.write_bytes(b"# xxxxx\n")
    result = cli("download", "alpha", "--registry", registry, "--output", out)
    assert result.code == 5
    assert "README.md of alpha 1.0.0" in result.err
    assert not list(out.glob("*.mbpack"))


def test_unknown_pack(cli: Cli, registry: Path, publish: Publish, out: Path) -> None:
    publish("alpha")
    result = cli("download", "alpa", "--registry", registry, "--output", out)
    assert result.code == 3
    assert "did you mean `alpha`?" in result.err
    assert not out.exists()
