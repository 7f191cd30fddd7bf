"""`mbpm lock`. (Locking a home is tested in test_lock.py.)"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry_index.tree import index_path
from specs.base_card import BaseCard
from tests.support.cli import Cli
from tests.support.packs import pack_folder, published, tiny_base
from tests.support.projects import HEAD, ProjectCli

Publish = Callable[..., None]


@pytest.fixture
def project(cli: Cli, tmp_path: Path, registry: Path) -> ProjectCli:
    return ProjectCli(cli, tmp_path / "clinic", 'alpha = "^1"\n')


def rewrite(registry: Path, name: str, **changes: Any) -> None:
    """Change every index line of a pack."""
    file = registry / "index" / index_path(name)
    lines = [json.loads(line) | changes for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_same_bytes_again(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    result = project.ok("lock")
    assert result.out == "added    alpha 1.0.0\nadded    base tiny\n"
    assert "locked 1 pack in " in result.err
    before, stat = project.lock.read_bytes(), project.lock.stat()
    result = project.ok("lock")
    assert "is up to date" in result.err
    assert result.out == ""
    assert project.lock.read_bytes() == before
    assert project.lock.stat().st_mtime_ns == stat.st_mtime_ns
    project.lock.unlink()
    project.ok("lock")
    assert project.lock.read_bytes() == before
    assert not project.cli.home.exists()


def test_the_same_bytes_elsewhere(
    project: ProjectCli, publish: Publish, registry: Path, tmp_path: Path
) -> None:
    publish("alpha")
    project.ok("lock")
    there = tmp_path / "elsewhere"
    there.mkdir()
    shutil.copytree(registry, there / "registry")
    other = ProjectCli(Cli(there / "home"), there / "clinic", 'alpha = "^1"\n')
    other.ok("lock")
    assert other.lock.read_bytes() == project.lock.read_bytes()


def test_locked_versions_stay_until_they_are_upgraded(
    project: ProjectCli, publish: Publish
) -> None:
    for name in ("alpha", "beta"):
        publish(name)
    project.write('alpha = "1"\nbeta = "1"\n')
    project.ok("lock")
    for name in ("alpha", "beta"):
        publish(name, "1.1.0")
    assert "is up to date" in project.ok("lock").err
    result = project.ok("lock", "--upgrade-pack", "beta")
    assert result.out == "changed  beta 1.0.0 -> 1.1.0\n"
    assert project.locked() == {"alpha": "1.0.0", "beta": "1.1.0"}
    document = project.ok("lock", "--upgrade", "--json").json
    assert document["changes"] == [
        {"kind": "pack", "name": "alpha", "old": "1.0.0", "new": "1.1.0"}
    ]
    assert document["changed"] is True


def test_exactly_one_version(project: ProjectCli, publish: Publish) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0", "2.0.0"):
        publish("words", version)
        publish("alpha", version, requires={"words": "1"})
    project.write('alpha = "1"\n')
    project.ok("lock")
    assert project.locked() == {"alpha": "1.2.0", "words": "1.2.0"}
    project.ok("lock", "--upgrade-pack", "alpha@=1.0.0", "-P", "words@~1.1")
    assert project.locked() == {"alpha": "1.0.0", "words": "1.1.0"}
    project.ok("lock", "--upgrade", "-P", "words@=1.0.0")
    assert project.locked() == {"alpha": "1.2.0", "words": "1.0.0"}
    before = project.lock.read_bytes()
    refused = project("lock", "-P", "alpha@=2.0.0")
    assert refused.code == 4
    assert "`alpha =2.0.0` does not go with `alpha 1`, which mbpm.toml wants" in refused.err
    refused = project("lock", "-P", "words@=2.0.0")
    assert refused.code == 4 and "`words =2.0.0` does not go with the other packs" in refused.err
    refused = project("lock", "-P", "words@=3.0.0")
    assert refused.code == 4 and "no version of words is `=3.0.0`" in refused.err
    assert "there is words 1.0.0, 1.1.0, 1.2.0, 2.0.0" in refused.err
    assert project("lock", "-P", "words@x").code == 2
    assert project.lock.read_bytes() == before


def test_upgrade_of_what_is_not_locked(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    project.ok("lock")
    result = project("lock", "--upgrade-pack", "alpa")
    assert result.code == 3
    assert "did you mean `alpha`?" in result.err


def test_what_is_installed_has_no_say(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    project.ok("sync", "--yes")
    project.lock.unlink()
    publish("alpha", "1.1.0")
    project.ok("lock")
    assert project.locked() == {"alpha": "1.1.0"}
    assert project.installed() == {"alpha": "1.0.0"}


def test_dry_run(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    assert "added    alpha 1.0.0" in project.ok("lock", "-s").out
    assert not project.lock.exists()


def test_check(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    result = project("lock", "--check")
    assert result.code == 4
    assert "mbpm.lock: is not what `mbpm lock` would write" in result.err
    assert not project.lock.exists()
    project.ok("lock")
    project.ok("lock", "--check")
    before = project.lock.read_bytes()
    project.write('alpha = "=1.0.0"\n')
    result = project("lock", "--check", "--json")
    assert result.code == 4
    assert result.json["changes"] == []
    assert project.lock.read_bytes() == before


def test_nothing_is_written_where_nothing_fits(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    project.ok("lock")
    before = project.lock.read_bytes()
    publish("beta", conflicts={"alpha": "*"})
    project.write('alpha = "1"\nbeta = "1"\n')
    result = project("lock")
    assert result.code == 4
    assert "beta 1.0.0 conflicts with" in result.err
    assert project.lock.read_bytes() == before


def test_a_yanked_version_stays_only_where_it_is_locked(
    project: ProjectCli, publish: Publish, registry: Path
) -> None:
    publish("alpha")
    project.ok("lock")
    rewrite(registry, "alpha", yanked=True)
    result = project.ok("lock")
    assert "warning: alpha 1.0.0 is yanked" in result.err
    assert project.locked() == {"alpha": "1.0.0"}
    publish("alpha", "1.0.1")
    project.ok("lock", "--upgrade")
    assert project.locked() == {"alpha": "1.0.1"}
    project.lock.unlink()
    rewrite(registry, "alpha", yanked=True)
    assert project("lock").code == 4


def test_another_publisher(project: ProjectCli, publish: Publish, registry: Path) -> None:
    publish("alpha")
    rewrite(registry, "alpha", publisher="ann@example.org")
    project.ok("lock")
    assert project.document()["packs"][0]["publisher"] == "ann@example.org"
    rewrite(registry, "alpha", publisher="eve@example.org")
    before = project.lock.read_bytes()
    result = project("lock", "--check")
    assert result.code == 5
    said = "alpha 1.0.0 was published by `eve@example.org`, and alpha 1.0.0 by `ann@example.org`"
    assert said in result.err
    assert project.lock.read_bytes() == before
    assert f"warning: {said}" in project.ok("lock").err


def test_a_publisher_that_is_named_for_the_first_time(
    project: ProjectCli, publish: Publish, registry: Path
) -> None:
    publish("alpha")
    project.ok("lock")
    rewrite(registry, "alpha", publisher="ann@example.org")
    assert "warning" not in project.ok("lock").err


def test_merge_conflict(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    publish("beta")
    project.ok("lock")
    lines = project.lock.read_text().splitlines(keepends=True)
    wants = next(i for i, line in enumerate(lines) if line.startswith("wants"))
    other = f'wants = "{"0" * 64}"\n'
    lines[wants : wants + 1] = ["<<<<<<< HEAD\n", lines[wants], "=======\n", other, ">>>>>>> b\n"]
    project.lock.write_text("".join(lines))
    publish("alpha", "1.1.0")
    for command in (["sync", "--yes"], ["sync", "--frozen"], ["lock", "--check"], ["add", "beta"]):
        result = project(*command)
        assert result.code == 5
        assert f"mbpm.lock: line {wants + 1} is the mark of a merge conflict" in result.err
        assert "hint: `mbpm lock` writes mbpm.lock again" in result.err
    result = project.ok("lock")
    assert "warning: " in result.err
    assert "mark of a merge conflict; mbpm.lock is written again" in result.err
    assert project.locked() == {"alpha": "1.0.0"}, "what one side has stays"
    project.ok("lock", "--check")


def test_merge_conflict_in_the_toml(project: ProjectCli) -> None:
    project.write('<<<<<<< HEAD\nalpha = "1"\n=======\nalpha = "2"\n>>>>>>> other\n')
    result = project("lock")
    assert result.code == 5
    assert "mbpm.toml: line 11 is the mark of a merge conflict" in result.err
    assert "hint: settle the conflict in mbpm.toml" in result.err


@pytest.mark.parametrize("content", [b"", b"\xff", b"[[packs]]\n" * 3, b"format = 1\nx", b"0" * 9])
def test_a_damaged_lock_is_written_again(
    project: ProjectCli, publish: Publish, content: bytes
) -> None:
    publish("alpha")
    project.lock.write_bytes(content)
    assert project("sync", "--yes").code == 5
    assert "mbpm.lock is written again" in project.ok("lock").err
    assert project.locked() == {"alpha": "1.0.0"}


def test_a_lock_of_a_newer_mbpm_is_left_alone(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    project.lock.write_text("format = 2\n[future]\n")
    result = project("lock")
    assert result.code == 1
    assert "mbpm.lock: has format 2, and this version of mbpm reads format 1" in result.err
    assert project.lock.read_text() == "format = 2\n[future]\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "mbpm.toml: `project` is missing"),
        (b"\xff", "mbpm.toml: is not UTF-8 (byte 0)"),
        (b"[project", "mbpm.toml: is not TOML"),
        (b'[project]\nname = "x"\ncolour = 1\n', "mbpm.toml: unknown key `project.colour`"),
        (b'[project]\nname = "x"\n[packs]\na = "one"\n', "'one' is not a version requirement"),
    ],
)
def test_a_bad_mbpm_toml(project: ProjectCli, content: bytes, said: str) -> None:
    project.toml.write_bytes(content)
    result = project("lock")
    assert result.code == 5
    assert said in result.err


def test_a_name_is_taken_from_where_it_was_locked(
    project: ProjectCli, publish: Publish, registry: Path, tmp_path: Path
) -> None:
    publish("alpha")
    project.ok("lock")
    other = tmp_path / "other"
    shutil.copytree(registry, other)
    shutil.rmtree(other / "index")
    published(pack_folder(tmp_path / "evil", "alpha", "1.9.0"), other)
    head = HEAD.replace("[registries]\n", '[registries]\nother = "../other"\n')
    project.write('alpha = "1"\n', head)
    project.ok("lock", "--upgrade")
    assert project.locked() == {"alpha": "1.0.0"}
    project.write('alpha = { version = "1", registry = "other" }\n', head)
    result = project.ok("lock", "--upgrade")
    assert "warning: alpha 1.9.0 comes from the registry ../other, and came from ../registry" in (
        result.err
    )
    assert project.locked() == {"alpha": "1.9.0"}


def test_a_registry_that_moved(
    project: ProjectCli, publish: Publish, registry: Path, tmp_path: Path
) -> None:
    publish("alpha")
    project.ok("lock")
    registry.rename(tmp_path / "moved")
    project.write('alpha = "1"\n', HEAD.replace("../registry", "../moved"))
    assert "comes from the registry ../moved" in project.ok("lock").err
    assert project.document()["packs"][0]["registry"] == "../moved"
    assert project.locked() == {"alpha": "1.0.0"}


def test_the_same_bytes_elsewhere_bring_no_newer_ones_along(
    project: ProjectCli, publish: Publish, registry: Path, tmp_path: Path
) -> None:
    publish("alpha")
    project.ok("lock")
    other = tmp_path / "other"
    shutil.copytree(registry, other)
    published(pack_folder(tmp_path / "evil", "alpha", "1.9.0"), other)
    (registry / "index" / index_path("alpha")).unlink()
    project.cli.ok("registry", "add", "other", other)
    result = project.ok("lock", "--upgrade")
    assert project.locked() == {"alpha": "1.0.0"}
    assert f"comes from the registry {other}, and came from ../registry" in result.err


def test_a_registry_that_is_another_now(
    project: ProjectCli, publish: Publish, registry: Path, tmp_path: Path
) -> None:
    publish("alpha")
    project.ok("lock")
    shutil.rmtree(registry / "index")
    registry.rename(tmp_path / "moved")
    published(pack_folder(tmp_path / "evil", "alpha", "1.9.0"), tmp_path / "moved")
    project.write('alpha = "1"\n', HEAD.replace("../registry", "../moved"))
    before = project.lock.read_bytes()
    result = project("lock")
    assert result.code == 3
    assert "mbpm.lock has alpha from ../registry, and " in result.err
    assert "name the registry to take it from in mbpm.toml" in result.err
    assert project.lock.read_bytes() == before


def test_a_registry_nobody_knows(project: ProjectCli) -> None:
    project.write('alpha = { version = "1", registry = "team" }\n')
    result = project("lock")
    assert result.code in (2, 3)
    assert "team" in result.err


def test_recommended_packs(project: ProjectCli, publish: Publish) -> None:
    publish("beta")
    publish("alpha", recommends={"beta": "^1", "gamma": "^1"})
    result = project.ok("lock")
    assert "warning: gamma is recommended and left out" in result.err
    assert project.locked() == {"alpha": "1.0.0", "beta": "1.0.0"}
    project.write('alpha = "1"\n', HEAD.replace('"clinic"\n', '"clinic"\nrecommends = false\n'))
    project.ok("lock")
    assert project.locked() == {"alpha": "1.0.0"}


def test_pre_releases(project: ProjectCli, publish: Publish) -> None:
    publish("alpha", "1.0.0")
    publish("alpha", "1.1.0-rc.1")
    project.ok("lock")
    assert project.locked() == {"alpha": "1.0.0"}
    project.write('alpha = "1"\n', HEAD.replace('"clinic"\n', '"clinic"\nprereleases = true\n'))
    project.ok("lock", "--upgrade-pack", "alpha@>1.0.0")
    assert project.locked() == {"alpha": "1.1.0-rc.1"}
    project.ok("lock", "--upgrade-pack", "alpha@=1.0.0")
    project.ok("lock", "--upgrade")
    assert project.locked() == {"alpha": "1.1.0-rc.1"}


def test_hardware_of_the_smallest_machine(
    project: ProjectCli, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("alpha", "1.0.0")
    publish("alpha", "1.1.0", requires={"__vram": ">=24"})
    monkeypatch.setenv("MBPM_OVERRIDE_VRAM", "")
    project.ok("lock")
    assert project.locked() == {"alpha": "1.0.0"}
    monkeypatch.delenv("MBPM_OVERRIDE_VRAM")
    project.write('alpha = "1"\n[machine]\nvram = 24\n')
    project.ok("lock", "--upgrade")
    assert project.locked() == {"alpha": "1.1.0"}
    assert project.document()["packs"][0]["requires"] == {"__vram": ">=24"}


def other_base(registry: Path, tmp_path: Path) -> BaseCard:
    from registry_index.publish import publish_base

    card = tiny_base(tmp_path / "other-base", name="other", fingerprint="c" * 64)
    publish_base(card, registry)
    return card


def test_the_base_of_the_project(
    project: ProjectCli, publish: Publish, registry: Path, tmp_path: Path
) -> None:
    card = other_base(registry, tmp_path)
    publish("alpha", "1.0.0")
    publish(
        "alpha",
        "1.1.0",
        base={"name": "other", "fingerprint": card.fingerprint},
        fingerprint=card.fingerprint,
    )
    head = HEAD.replace('"clinic"\n', '"clinic"\nbase = "tiny"\n')
    project.write('alpha = "1"\n', head)
    project.ok("lock")
    assert project.locked() == {"alpha": "1.0.0"}
    project.write('alpha = "=1.1.0"\n', head)
    result = project("lock")
    assert result.code == 4
    assert "alpha 1.1.0 was made for base other, and mbpm.toml wants base tiny" in result.err
    project.write("", head)
    project.ok("lock")
    assert [b["name"] for b in project.document()["bases"]] == ["tiny"]
    project.write("", HEAD.replace('"clinic"\n', '"clinic"\nbase = "tniy"\n'))
    result = project("lock")
    assert result.code == 3
    assert "did you mean `tiny`?" in result.err
