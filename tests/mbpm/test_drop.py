"""`mbpm drop`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.projects import ProjectCli

Publish = Callable[..., None]


@pytest.fixture
def project(cli: Cli, tmp_path: Path, registry: Path, publish: Publish) -> ProjectCli:
    """A project with legal, which requires law-basics, and medical; all installed."""
    publish("law-basics")
    publish("legal", requires={"law-basics": "^1"})
    publish("medical")
    made = ProjectCli(cli, tmp_path / "clinic", 'legal = "1"  # tenancy\nmedical = "1"\n')
    made.ok("sync", "--yes")
    return made


def test_takes_what_only_it_needed_along(project: ProjectCli) -> None:
    result = project.ok("drop", "legal", "--yes")
    assert "remove     legal 1.0.0" in result.out
    assert "remove     law-basics 1.0.0" in result.out
    assert project.toml.read_text().endswith('[packs]\nmedical = "1"\n')
    assert project.locked() == project.installed() == {"medical": "1.0.0"}


def test_what_others_need_stays(project: ProjectCli) -> None:
    project.ok("add", "law-basics", "--yes")
    project.ok("drop", "law-basics", "--yes")
    assert project.installed().keys() == {"law-basics", "legal", "medical"}
    result = project("drop", "law-basics")
    assert result.code == 3
    assert "hint: it is there because legal requires it" in result.err


def test_all_of_them(project: ProjectCli) -> None:
    project.ok("drop", "legal", "medical", "--yes")
    assert project.locked() == {}
    assert project.installed() == {}
    assert project.document().keys() == {"format", "wants"}


def test_other_packs_stay_at_their_versions(project: ProjectCli, publish: Publish) -> None:
    publish("medical", "1.1.0")
    project.ok("drop", "legal", "--yes")
    assert project.installed() == {"medical": "1.0.0"}


def test_a_name_that_is_not_wanted(project: ProjectCli) -> None:
    before = project.bytes()
    result = project("drop", "medicl", "legal", "--yes")
    assert result.code == 3
    assert "does not want a pack `medicl`" in result.err
    assert "did you mean `medical`?" in result.err
    assert project.bytes() == before


def test_only_the_files_and_dry_run(project: ProjectCli) -> None:
    before = project.bytes()
    project.ok("drop", "legal", "--dry-run")
    assert project.bytes() == before
    result = project.ok("drop", "legal", "--no-sync")
    assert result.out == "dropped  law-basics 1.0.0\ndropped  legal 1.0.0\n"
    assert project.locked() == {"medical": "1.0.0"}
    assert project.installed().keys() == {"law-basics", "legal", "medical"}


def test_the_answer_no(project: ProjectCli) -> None:
    before = project.bytes()
    assert project("drop", "legal", answer="n\n").code == 1
    assert project.bytes() == before
    assert project.installed().keys() == {"law-basics", "legal", "medical"}
