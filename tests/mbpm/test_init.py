"""`mbpm init`."""

from __future__ import annotations

from pathlib import Path

import pytest

from specs.project import Project
from tests.support.cli import Cli


def project(folder: Path) -> Project:
    return Project.parse_toml((folder / "mbpm.toml").read_bytes(), "mbpm.toml")


def test_begins_a_project(cli: Cli, tmp_path: Path) -> None:
    result = cli.ok("init", tmp_path / "clinic")
    assert "wrote " in result.err
    assert "hint: `mbpm add NAME` adds a pack" in result.err
    assert project(tmp_path / "clinic").profile == "clinic"
    assert not cli.home.exists()


def test_here(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "My Clinic"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert "wrote mbpm.toml" in cli.ok("init").err
    assert project(folder).project.name == "my-clinic"


def test_everything_named(cli: Cli, tmp_path: Path) -> None:
    made = cli.ok("init", tmp_path, "--name", "a", "--base", "tiny", "--profile", "b", "--json")
    assert made.json == {"file": str(tmp_path / "mbpm.toml"), "name": "a", "changed": True}
    assert project(tmp_path).project.model_dump(exclude_defaults=True) == {
        "name": "a",
        "profile": "b",
        "base": "tiny",
    }


def test_does_not_overwrite(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mbpm.toml").write_text("mine")
    result = cli("init", tmp_path, "--name", "x")
    assert result.code == 1
    assert "mbpm.toml: is there already, and was left as it is" in result.err
    assert (tmp_path / "mbpm.toml").read_text() == "mine"


@pytest.mark.parametrize("name", ["../x", "Ä", "default", "a" * 65, 'x"\nformat = 2'])
def test_no_name_for_a_project(cli: Cli, tmp_path: Path, name: str) -> None:
    result = cli("init", tmp_path / "new", "--name", name)
    assert result.code == 2
    assert "`project" in result.err
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_called_nothing_fit(cli: Cli, tmp_path: Path) -> None:
    result = cli("init", tmp_path / "Äpfel")
    assert result.code == 2
    assert "hint: `--name NAME` names it" in result.err


def test_where_nothing_can_be_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = cli("init", tmp_path / "file" / "clinic")
    assert result.code == 1
    assert result.err.startswith("error: ")


def test_dry_run(cli: Cli, tmp_path: Path) -> None:
    assert 'name = "clinic"' in cli.ok("init", tmp_path / "clinic", "-s").out
    assert not (tmp_path / "clinic").exists()
