"""`mbpm doctor`: every kind of damage is found, named, and the mending that is hinted at works."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mbpm import facts
from mbpm.home import Home
from mbpm.store import Store
from tests.support.cli import Cli, Result

Publish = Callable[..., None]


@pytest.fixture
def installed(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """A home with the pack `alpha` and its base."""
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    cli.ok("doctor")
    return cli


def found_wrong(cli: Cli, *words: str) -> Result:
    """Run doctor, which must fail and say all of `words` on one finding or its hint."""
    result = cli("doctor")
    assert result.code == 1, result
    lines = result.out.splitlines()
    at = [i for i, line in enumerate(lines) if line.startswith("problem")]
    texts = [" ".join(lines[i : i + 2]) for i in at]
    assert any(all(word in text for word in words) for text in texts), result.out
    assert "found" in result.err
    return result


def test_an_empty_machine_is_well(cli: Cli) -> None:
    result = cli.ok("doctor")
    assert "made by the first install" in result.out
    assert "note     base" in result.out
    assert "hint: `mbpm install NAME` brings the base of a pack" in result.out
    assert "problem" not in result.out
    assert not cli.home.exists()


def test_json(installed: Cli) -> None:
    document = installed.ok("doctor", "--json").json
    assert document["ok"] is True
    found = {f["subject"]: f for f in document["findings"]}
    assert found["pack alpha"]["level"] == "ok"
    assert found["pack alpha"]["text"] == "1.0.0"
    assert found["python"]["text"] == ".".join(map(str, sys.version_info[:3]))
    assert {"cpu", "threads", "cuda", "disk", "home", "registry bundled"} <= set(found)
    shutil.rmtree(installed.home / "store" / "packs")
    broken = installed("doctor", "--json")
    assert broken.code == 1
    assert broken.json["ok"] is False
    assert broken.json["error"]["exit_code"] == 1
    (problem,) = [f for f in broken.json["findings"] if f["level"] == "problem"]
    assert problem["hint"] == "`mbpm install alpha --reinstall`"


def test_files_of_a_pack_are_gone(installed: Cli, registry: Path) -> None:
    shutil.rmtree(installed.home / "store" / "packs")
    found_wrong(installed, "pack alpha", "hint: `mbpm install alpha --reinstall`")
    installed.ok("install", "alpha", "--reinstall", "--registry", registry, "--yes")
    installed.ok("doctor")


def test_a_file_of_a_pack_has_the_wrong_size(installed: Cli, registry: Path) -> None:
    (folder,) = Home(installed.home).pack_dirs()
    (folder / "README.md").unlink()
    (folder / "README.md").write_text("short")
    found_wrong(installed, "pack alpha", "wrong size", "`mbpm install alpha --reinstall`")
    installed.ok("install", "alpha", "--reinstall", "--registry", registry, "--yes")
    installed.ok("doctor")


def test_files_of_a_base_are_gone(installed: Cli, registry: Path) -> None:
    shutil.rmtree(installed.home / "store" / "bases")
    found_wrong(installed, "base tiny", "hint: `mbpm base install tiny --reinstall`")
    installed.ok("base", "install", "tiny", "--reinstall", "--registry", registry, "--yes")
    installed.ok("doctor")


def test_a_manifest_is_gone(installed: Cli) -> None:
    home = Home(installed.home)
    home.store.blob_path(home.current().packs[0].manifest).unlink()
    found_wrong(installed, "pack alpha", "missing", "`mbpm install alpha --reinstall`")


def test_a_manifest_is_brought_back(installed: Cli, registry: Path) -> None:
    home = Home(installed.home)
    home.store.blob_path(home.current().packs[0].manifest).unlink()
    installed.ok("install", "alpha", "--reinstall", "--registry", registry, "--yes")
    installed.ok("doctor")


def test_the_pointer_is_damaged(installed: Cli) -> None:
    pointer = Home(installed.home).pointer
    pointer.write_text("nonsense")
    found_wrong(installed, "does not hold a generation's number", "hint: `mbpm repair` goes back")
    pointer.write_text("1")
    installed.ok("doctor")


def test_the_pointer_points_nowhere_and_nothing_can_be_read(installed: Cli) -> None:
    home = Home(installed.home)
    home.generation_path(1).write_text("{")
    found_wrong(installed, "1.json", "hint: `mbpm repair` goes back")
    installed.ok("repair", "--yes")
    installed.ok("doctor")


def test_a_change_was_interrupted(installed: Cli) -> None:
    (installed.home / "journal.json").write_text('{"to": 2, "added": [], "dropped": []}')
    result = installed.ok("doctor")
    assert "a change is under way, or was interrupted" in result.out


def test_unfinished_downloads(installed: Cli) -> None:
    parts = installed.home / "store" / "parts"
    parts.mkdir(exist_ok=True)
    (parts / "x.part").write_bytes(b"x" * 2000)
    result = installed.ok("doctor")
    assert "2.0 kB of unfinished downloads" in result.out
    assert "`mbpm clean` drops them" in result.out


def test_little_disk(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "disk", lambda home: facts.Disk(store=1, parts=0, free=1_000_000))
    found_wrong(cli, "1.0 MB free", "free 499.0 MB more")


def test_little_memory(installed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "total_memory", lambda: 1000)
    found_wrong(installed, "base tiny", "4.1 kB", "1.0 kB", "use a smaller base")


def test_home_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    found_wrong(Cli(tmp_path / "file" / "home"), "is not a directory", "`--home DIR`")


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="needs a user whom permissions bind",
)
def test_home_cannot_be_written(cli: Cli) -> None:
    cli.home.mkdir(mode=0o500)
    found_wrong(cli, "cannot be written to")


def test_a_package_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = facts.versions()
    monkeypatch.setattr(facts, "versions", lambda: {**real, "gguf": None})
    found_wrong(cli, "gguf", "is not installed", "`pip install gguf`")


def test_torch_cannot_be_imported(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found_wrong(cli, "torch", "cannot be imported", "`pip install --force-reinstall torch`")


def test_a_registry_with_a_malformed_index(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    assert f"{registry}, packs: 1, bases: 1" in cli.ok("doctor", "--registry", registry).out
    index = registry / "index" / "al" / "ph" / "alpha"
    index.write_text("{")
    result = cli("doctor", "--registry", registry)
    assert result.code == 1
    assert f"{index}, line 1: is not JSON" in result.out


def test_a_registry_that_lacks_a_manifest(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha")
    shutil.rmtree(registry / "blobs")
    result = cli("doctor", "--registry", registry)
    assert result.code == 1
    assert "lacks the manifest of alpha 1.0.0" in result.out


def test_a_registry_with_versions_of_the_future(cli: Cli, registry: Path) -> None:
    index = registry / "index" / "al" / "ph" / "alpha"
    index.parent.mkdir(parents=True)
    index.write_text('{"format":2,"name":"alpha","version":"9.0.0"}\n')
    result = cli.ok("doctor", "--registry", registry)
    assert "that need a newer mbpm: 1" in result.out
    assert "`pip install --upgrade mbpm`" in result.out


def test_a_registry_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    result = cli("doctor", "--registry", tmp_path / "missing")
    assert result.code == 1
    assert "no registry at" in result.out


def test_every_problem_is_found_at_once(installed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    store: Store = Home(installed.home).store
    shutil.rmtree(store.root / "packs")
    shutil.rmtree(store.root / "bases")
    monkeypatch.setattr(facts, "disk", lambda home: facts.Disk(store=1, parts=0, free=0))
    result = installed("doctor")
    assert result.code == 1
    assert "error: 3 problems found" in result.err
    assert sum(line.startswith("problem") for line in result.out.splitlines()) == 3
