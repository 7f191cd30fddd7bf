"""`mbpm sync`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry_index.tree import index_path
from tests.support.cli import Cli
from tests.support.projects import HEAD, ProjectCli

Publish = Callable[..., None]


@pytest.fixture
def project(cli: Cli, tmp_path: Path, registry: Path, publish: Publish) -> ProjectCli:
    """A project that wants alpha, which requires beta; locked, not installed."""
    publish("beta")
    publish("alpha", requires={"beta": "^1"})
    made = ProjectCli(cli, tmp_path / "clinic", 'alpha = "^1"\n')
    made.ok("lock")
    return made


def fresh(project: ProjectCli, tmp_path: Path) -> ProjectCli:
    """The same checkout on another machine."""
    project.cli = Cli(tmp_path / "fresh-home")
    return project


def test_has_what_the_lock_says(project: ProjectCli) -> None:
    result = project.ok("sync", "--yes")
    assert "install    alpha 1.0.0" in result.out
    assert "installed alpha 1.0.0" in result.err
    assert "hint: `mbpm --profile clinic chat` uses it" in result.err
    assert project.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}
    project.cli.ok("--profile", "clinic", "verify")
    listed = project.cli.ok("--profile", "clinic", "list", "--json").json["packs"]
    assert {p["name"]: p["auto"] for p in listed} == {"alpha": False, "beta": True}


def test_twice(project: ProjectCli, registry: Path) -> None:
    project.ok("sync", "--yes")
    shutil.rmtree(registry)
    result = project.ok("sync")
    assert "profile clinic holds what mbpm.lock says" in result.err
    assert result.out == ""
    assert "hint" not in result.err


def test_removes_what_is_not_in_the_lock(
    project: ProjectCli, publish: Publish, registry: Path
) -> None:
    publish("gamma")
    project.cli.ok("--profile", "clinic", "install", "gamma", "--registry", registry, "--yes")
    project.cli.ok("install", "gamma", "--registry", registry, "--yes")
    result = project.ok("sync", "--yes")
    assert "remove     gamma 1.0.0" in result.out
    assert project.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}
    assert project.installed("default") == {"gamma": "1.0.0"}


def test_goes_back_to_older_versions(project: ProjectCli, publish: Publish, registry: Path) -> None:
    publish("beta", "1.1.0")
    project.cli.ok("--profile", "clinic", "install", "beta", "--registry", registry, "--yes")
    assert "downgrade  beta 1.1.0 -> 1.0.0" in project.ok("sync", "--yes").out


def test_keeps_holds(project: ProjectCli) -> None:
    project.ok("sync", "--yes")
    project.cli.ok("--profile", "clinic", "hold", "alpha")
    assert "holds what mbpm.lock says" in project.ok("sync").err


def test_the_lock_decides_about_what_is_held_by_hand(project: ProjectCli, publish: Publish) -> None:
    project.ok("sync", "--yes")
    project.cli.ok("--profile", "clinic", "hold", "alpha")
    project.cli.ok("--profile", "clinic", "pin", "beta@=1.0.0")
    publish("beta", "1.1.0")
    publish("alpha", "1.1.0", requires={"beta": "1"})
    project.ok("lock", "--upgrade")
    result = project.ok("sync", "--yes")
    assert "warning: alpha is held at 1.0.0 in the profile clinic" in result.err
    assert "warning: beta is pinned to `=1.0.0` at 1.0.0" in result.err
    assert "`mbpm add alpha@=1.0.0` keeps the version" in result.err
    assert project.installed() == {"alpha": "1.1.0", "beta": "1.1.0"}


def test_another_profile(project: ProjectCli) -> None:
    project.ok("sync", "--yes", "--profile", "other")
    assert project.installed() == {}
    assert project.installed("other").keys() == {"alpha", "beta"}
    project.write('alpha = "^1"\n', HEAD.replace('"clinic"\n', '"clinic"\nprofile = "third"\n'))
    project.ok("sync", "--yes", "--locked")
    assert project.installed("third").keys() == {"alpha", "beta"}


def test_dry_run_and_json(project: ProjectCli) -> None:
    before = project.bytes()
    project.write('alpha = "=1.0.0"\n')
    document = project.ok("sync", "-s", "--json").json
    assert document["project"] == str(project.folder)
    assert document["profile"] == "clinic"
    assert [p["name"] for p in document["plan"]["packs"]] == ["alpha", "beta"]
    assert project.bytes()[1] == before[1], "the lock that would be made is not written"
    assert project.installed() == {}


def test_without_a_lock(project: ProjectCli) -> None:
    project.lock.unlink()
    result = project.ok("sync", "--yes")
    assert "there is no mbpm.lock: locking" in result.err
    assert project.locked().keys() == {"alpha", "beta"}


def test_locks_first_where_the_lock_is_old(project: ProjectCli, publish: Publish) -> None:
    publish("gamma")
    publish("alpha", "1.1.0")
    project.write('alpha = "^1"\ngamma = "1"\n')
    result = project.ok("sync", "--yes")
    assert "mbpm.toml wants gamma, which mbpm.lock does not have: locking" in result.err
    assert project.locked() == {"alpha": "1.0.0", "beta": "1.0.0", "gamma": "1.0.0"}
    assert project.installed() == project.locked()


@pytest.mark.parametrize(
    ("packs", "why"),
    [
        ('alpha = "^1"\ngamma = "1"\n', "mbpm.toml wants gamma, which mbpm.lock does not have"),
        ('alpha = "^1"\nbeta = "1"\n', "mbpm.toml wants beta, which mbpm.lock does not have"),
        ('alpha = "^2"\n', "mbpm.toml wants `alpha ^2`, and mbpm.lock has 1.0.0"),
        ("", "mbpm.lock has alpha, which mbpm.toml does not want"),
        ('alpha = "1"\n', "mbpm.toml was changed since mbpm.lock was made"),
    ],
)
def test_locked_refuses_an_old_lock(project: ProjectCli, packs: str, why: str) -> None:
    project.write(packs)
    before = project.bytes()
    result = project("sync", "--locked", "--yes")
    assert result.code == 4
    assert f"mbpm.lock: is out of date: {why}" in result.err
    assert "hint: `mbpm lock` brings it up to date" in result.err
    assert project.bytes() == before
    assert project.installed() == {}


@pytest.mark.parametrize("option", ["--locked", "--frozen"])
def test_a_lock_that_is_missing(project: ProjectCli, option: str) -> None:
    project.lock.unlink()
    result = project("sync", option, "--yes")
    assert result.code == 4
    assert "mbpm.lock: is not there" in result.err
    assert "hint: `mbpm lock` makes it" in result.err
    assert not project.lock.exists()


def test_locked_with_a_current_lock(project: ProjectCli) -> None:
    before = project.bytes()
    project.ok("sync", "--locked", "--yes")
    assert project.bytes() == before
    assert project.installed().keys() == {"alpha", "beta"}


def test_frozen_takes_the_lock_as_it_is(project: ProjectCli, registry: Path) -> None:
    project.write('alpha = "^7"\nother = "1"\n')
    shutil.rmtree(registry / "index")
    before = project.bytes()
    project.ok("sync", "--frozen", "--yes")
    assert project.bytes() == before
    assert project.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}


def test_locked_and_frozen(project: ProjectCli) -> None:
    assert project("sync", "--locked", "--frozen").code == 2


def rewrite(registry: Path, name: str, **changes: Any) -> None:
    file = registry / "index" / index_path(name)
    lines = [json.loads(line) | changes for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_yanked_version_stays_usable(project: ProjectCli, registry: Path) -> None:
    rewrite(registry, "alpha", yanked=True)
    project.ok("sync", "--locked", "--yes")
    assert project.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}


def test_another_publisher_of_the_same_version(project: ProjectCli, registry: Path) -> None:
    rewrite(registry, "alpha", publisher="ann@example.org")
    project.ok("lock")
    rewrite(registry, "alpha", publisher="eve@example.org")
    result = project("sync", "--locked", "--yes")
    assert result.code == 5
    assert "published by `ann@example.org`, and its registry now says by `eve@exam" in result.err
    assert project.installed() == {}


def test_a_publisher_that_is_named_since(project: ProjectCli, registry: Path) -> None:
    rewrite(registry, "alpha", publisher="ann@example.org")
    project.ok("sync", "--locked", "--yes")


def test_the_publisher_somewhere_else(project: ProjectCli, registry: Path, tmp_path: Path) -> None:
    shutil.copytree(registry, tmp_path / "mirror")
    rewrite(registry, "alpha", publisher="ann@example.org")
    project.ok("lock")
    registry.rename(tmp_path / "away")
    project.ok("sync", "--locked", "--yes", "--registry", tmp_path / "mirror")


def test_a_version_that_left_the_index(project: ProjectCli, registry: Path) -> None:
    (registry / "index" / index_path("alpha")).unlink()
    project.ok("sync", "--yes")
    assert project.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}


def test_a_pack_that_is_gone(project: ProjectCli, registry: Path, tmp_path: Path) -> None:
    shutil.copytree(registry, tmp_path / "copy")
    digest = next(p["manifest"] for p in project.document()["packs"] if p["name"] == "alpha")
    (registry / "index" / index_path("alpha")).unlink()
    (registry / "blobs" / digest[:2] / digest).unlink()
    for more in ([], ["--locked"], ["--frozen"]):
        result = project("sync", "--yes", *more)
        assert result.code == 3
        assert "mbpm.lock: alpha 1.0.0 cannot be had any more" in result.err
        assert "`mbpm lock --upgrade-pack alpha`" in result.err
    assert project.installed() == {}
    project.ok("sync", "--yes", "--registry", tmp_path / "copy")
    assert project.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}


def test_a_registry_that_is_gone(project: ProjectCli, registry: Path) -> None:
    registry.rename(registry.with_name("away"))
    result = project("sync", "--yes")
    assert result.code == 3
    assert "../registry" in result.err or str(registry) in result.err


def test_a_machine_that_is_too_small(
    project: ProjectCli, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("alpha", "1.1.0", requires={"__vram": ">=24"})
    monkeypatch.setenv("MBPM_OVERRIDE_VRAM", "24")
    project.ok("lock", "--upgrade")
    monkeypatch.setenv("MBPM_OVERRIDE_VRAM", "8")
    result = project("sync", "--yes")
    assert result.code == 4
    assert "alpha 1.1.0 needs `__vram >=24`, and this machine has 8.0.0" in result.err
    assert "hint: set `MBPM_OVERRIDE_VRAM`" in result.err
    monkeypatch.setenv("MBPM_OVERRIDE_VRAM", "24")
    project.ok("sync", "--yes")


def test_on_another_machine(project: ProjectCli, tmp_path: Path) -> None:
    project.ok("sync", "--yes")
    before = project.bytes()
    other = fresh(project, tmp_path)
    other.ok("sync", "--locked", "--yes")
    assert other.bytes() == before
    assert other.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}


def test_projects_share_the_store(project: ProjectCli, cli: Cli, tmp_path: Path) -> None:
    project.ok("sync", "--yes")
    head = HEAD.replace("clinic", "second")
    second = ProjectCli(cli, tmp_path / "second", 'beta = "1"\n', head)
    document = second.ok("sync", "--yes", "--json").json
    assert [p["fetch_bytes"] for p in document["plan"]["packs"]] == [0]
    assert second.installed("second") == {"beta": "1.0.0"}
    assert project.installed().keys() == {"alpha", "beta"}


def test_killed_between_the_two_files(
    project: ProjectCli, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mbpm.toml is newer than its lock then, which the next command sees and puts right."""
    from mbpm.project import wanting

    publish("gamma")
    write = wanting.write

    class Killed(BaseException):
        pass

    def once(file: Path, data: bytes, *, before: bytes | None) -> None:
        if file.name == "mbpm.lock":
            raise Killed
        write(file, data, before=before)

    with monkeypatch.context() as patched:
        patched.setattr(wanting, "write", once)
        patched.setattr(wanting, "put_back", lambda file, before: None)
        with pytest.raises(Killed):
            project("add", "gamma", "--yes")
    assert "gamma" in project.toml.read_text()
    assert "gamma" not in project.lock.read_text()
    assert project("sync", "--locked").code == 4
    project.ok("sync", "--yes")
    assert project.installed().keys() == {"alpha", "beta", "gamma"}


def test_undo_takes_a_sync_back(project: ProjectCli) -> None:
    project.ok("sync", "--yes")
    project.cli.ok("--profile", "clinic", "undo", "--yes")
    assert project.installed() == {}


def test_a_checkout_decides_nothing_for_other_profiles(project: ProjectCli, registry: Path) -> None:
    """Else whoever gets somebody to sync a project could name the registry of any pack."""
    project.ok("sync", "--yes")
    result = project.cli("install", "alpha", "--yes")
    assert result.code == 3
    assert "no pack `alpha` in the registry `bundled`" in result.err
    project.cli.ok("--profile", "clinic", "remove", "alpha", "--yes")
    project.cli.ok("--profile", "clinic", "install", "alpha", "--yes")


def test_two_projects_of_one_name(project: ProjectCli, cli: Cli, tmp_path: Path) -> None:
    project.ok("sync", "--yes")
    second = ProjectCli(cli, tmp_path / "second", 'beta = "1"\n')
    result = second.ok("sync", "--dry-run")
    assert f"warning: the profile clinic is that of {project.folder} too" in result.err
    assert "remove     alpha 1.0.0" in result.out
    assert "warning" not in project.ok("sync").err
    project.folder.rename(tmp_path / "moved")
    assert "warning" not in second.ok("sync", "--yes").err
