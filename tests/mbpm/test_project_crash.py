"""A project killed at any moment: its files are the old or the new ones, and going on works."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mbpm.project import files
from specs.lockfile import Lock
from specs.project import Project
from tests.support import faults
from tests.support.cli import Cli
from tests.support.projects import ProjectCli

Publish = Callable[..., None]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def test_kill_during_add(cli: Cli, tmp_path: Path, registry: Path, publish: Publish) -> None:
    for name in ("alpha", "beta"):
        publish(name)
    project = ProjectCli(cli, tmp_path / "clinic", 'alpha = "^1"\n')
    project.ok("sync", "--yes")
    old_home, old_folder = tmp_path / "old-home", tmp_path / "old-clinic"
    shutil.copytree(cli.home, old_home)
    shutil.copytree(project.folder, old_folder)
    command = ["add", "beta", "--yes", "--project", project.folder]
    seen = set()
    for moment in range(1, 300):
        for start, place in ((old_home, cli.home), (old_folder, project.folder)):
            shutil.rmtree(place)
            shutil.copytree(start, place)
        ended = faults.command(command, home=cli.home, within=tmp_path, kill=moment)
        wanted = Project.parse_toml(project.toml.read_bytes(), "mbpm.toml").packs.keys()
        locked = {p.name for p in Lock.parse_toml(project.lock.read_bytes(), "mbpm.lock").packs}
        installed = project.installed().keys()
        assert {"alpha"} <= installed <= locked <= wanted <= {"alpha", "beta"}, ended.last
        seen.add((len(installed), len(locked), len(wanted)))
        project.ok("sync", "--yes")
        assert project.installed().keys() == wanted
        if not ended.killed:
            assert seen == {(1, 1, 1), (1, 1, 2), (1, 2, 2), (2, 2, 2)}
            return
    pytest.fail("the command never ended")


def test_what_a_killed_command_left_is_swept(cli: Cli, tmp_path: Path, registry: Path) -> None:
    project = ProjectCli(cli, tmp_path / "clinic")
    old, fresh = (project.folder / f".mbpm.lock.{c * 32}" for c in "ab")
    mine = project.folder / ".mbpm.lock.swp"
    for file in (old, fresh, mine):
        file.write_text("")
    past = old.stat().st_mtime - files.LEFTOVER_SECONDS - 1
    for file in (old, mine):
        os.utime(file, (past, past))
    project.ok("lock")
    assert {f.name for f in project.folder.iterdir()} == {
        "mbpm.toml",
        "mbpm.lock",
        fresh.name,
        mine.name,
    }
