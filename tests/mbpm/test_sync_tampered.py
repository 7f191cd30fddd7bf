"""`mbpm sync` where the lock or a registry was tampered with, or says something else now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry_index.publish import publish_base
from tests.support.cli import Cli
from tests.support.packs import tiny_base
from tests.support.projects import ProjectCli

Publish = Callable[..., None]


@pytest.fixture
def project(cli: Cli, tmp_path: Path, registry: Path, publish: Publish) -> ProjectCli:
    """A project that wants alpha, which requires beta; locked, not installed."""
    publish("beta")
    publish("alpha", requires={"beta": "^1"})
    made = ProjectCli(cli, tmp_path / "clinic", 'alpha = "^1"\n')
    made.ok("lock")
    return made


def entry(project: ProjectCli, name: str) -> dict[str, Any]:
    return next(p for p in project.document()["packs"] if p["name"] == name)


def test_a_lock_whose_file_digest_was_edited(project: ProjectCli) -> None:
    blob = entry(project, "alpha")["blobs"][0]["sha256"]
    project.edit_lock(blob, "f" * 64)
    refused(project, "what it says of alpha 1.0.0 is not so: its manifest says something else of")


def test_a_lock_whose_manifest_was_swapped(project: ProjectCli) -> None:
    alpha, beta = entry(project, "alpha")["manifest"], entry(project, "beta")["manifest"]
    project.edit_lock(alpha, beta)
    refused(project, "what it says of alpha 1.0.0 is not so: its manifest is that of beta 1.0.0")


def test_a_lock_whose_version_was_edited(project: ProjectCli) -> None:
    project.edit_lock('name = "alpha"\nversion = "1.0.0"', 'name = "alpha"\nversion = "1.0.1"')
    refused(project, "its manifest is that of alpha 1.0.0")


def test_a_lock_whose_requirements_were_edited(project: ProjectCli) -> None:
    project.edit_lock('requires = { beta = "^1" }\n', "")
    refused(project, "its manifest requires something else")


def test_a_lock_whose_base_was_edited(project: ProjectCli) -> None:
    project.edit_lock("b" * 64, "d" * 64)
    refused(project, "what it says of base tiny is not so: its card is that of tiny (bbbbbbbbbbbb")
    project.edit_lock("b" * 64, "d" * 64)
    result = project("sync", "--yes")
    assert result.code == 5
    assert "what it says of base tiny is not so" in result.err


def test_a_lock_with_a_pack_twice(project: ProjectCli) -> None:
    text = project.lock.read_text()
    project.lock.write_text(text + text[text.index("\n[[packs]]") :])
    refused(project, "pack `alpha` stands twice")


def refused(project: ProjectCli, said: str) -> None:
    """Every way of syncing says so and changes nothing, and `mbpm lock` mends it."""
    before = project.bytes()
    for more in ([], ["--locked"], ["--frozen"]):
        result = project("sync", "--yes", *more)
        assert result.code == 5, result
        assert "mbpm.lock: " in result.err
        assert said in result.err
        assert "hint: `mbpm lock` writes mbpm.lock again" in result.err
    assert project.bytes() == before
    assert project.installed() == {}
    project.ok("lock")
    project.ok("sync", "--yes")
    assert project.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}


def test_what_is_installed_is_held_against_the_lock_too(project: ProjectCli) -> None:
    project.ok("sync", "--yes")
    project.edit_lock(entry(project, "alpha")["blobs"][0]["sha256"], "f" * 64)
    result = project("sync", "--yes")
    assert result.code == 5
    assert "what it says of alpha 1.0.0 is not so" in result.err


def test_bytes_that_are_not_what_the_lock_says(project: ProjectCli, registry: Path) -> None:
    blob = next(b for b in entry(project, "alpha")["blobs"] if b["path"] == "adapter.safetensors")
    file = registry / "blobs" / blob["sha256"][:2] / blob["sha256"]
    file.chmod(0o644)
    file.write_bytes(b"x" * blob["size"])
    result = project("sync", "--yes")
    assert result.code == 5
    assert project.installed() == {}


def test_a_manifest_that_is_not_what_the_lock_says(project: ProjectCli, registry: Path) -> None:
    digest = entry(project, "alpha")["manifest"]
    file = registry / "blobs" / digest[:2] / digest
    file.chmod(0o644)
    file.write_bytes(file.read_bytes().replace(b"Answers", b"answers"))
    for more in ([], ["--frozen"]):
        assert project("sync", "--yes", *more).code == 5
    assert project.installed() == {}


def test_a_base_that_is_described_otherwise_now(
    project: ProjectCli, registry: Path, tmp_path: Path
) -> None:
    card = tiny_base(tmp_path / "base-files", description="Another text")
    (registry / "bases" / "tiny.json").unlink()
    publish_base(card, registry)
    result = project("sync", "--yes")
    assert result.code == 5
    assert "mbpm.lock: base tiny has the card" in result.err
    assert "hint: `mbpm lock` takes it as it is described now" in result.err
    assert "changed  base tiny (card)" in project.ok("lock").out
    project.ok("sync", "--locked", "--yes")


def test_a_base_that_is_here_needs_no_registry(
    project: ProjectCli, registry: Path, tmp_path: Path
) -> None:
    project.ok("sync", "--yes")
    card = tiny_base(tmp_path / "base-files", description="Another text")
    (registry / "bases" / "tiny.json").unlink()
    publish_base(card, registry)
    project.ok("sync", "--locked")
