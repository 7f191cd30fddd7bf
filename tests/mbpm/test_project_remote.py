"""Projects whose packs come from a web server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbpm.registries import remote
from registry_index.publish import publish_base
from registry_index.tree import Registry
from tests.support.cli import Cli
from tests.support.projects import ProjectCli
from tests.support.static import Static, serve

Publish = Callable[..., None]


@pytest.fixture
def site(registry: Path, tmp_path: Path, publish: Publish) -> Iterator[Static]:
    """Two packs, and the base with its weights."""
    card = Registry(registry).base("tiny")
    publish_base(card, registry, {"weights.gguf": tmp_path / "base-files" / "tiny.gguf"})
    publish("beta")
    publish("alpha", requires={"beta": "^1"})
    with serve(registry) as site:
        yield site


@pytest.fixture
def project(cli: Cli, tmp_path: Path, site: Static) -> ProjectCli:
    """Its mbpm.toml names the server; nothing else does."""
    head = f'[project]\nname = "clinic"\n\n[registries]\nteam = "{site.url}/"\n'
    return ProjectCli(cli, tmp_path / "clinic", head=head)


def elsewhere(project: ProjectCli, tmp_path: Path) -> ProjectCli:
    """The same checkout on a machine that has nothing."""
    project.cli = Cli(tmp_path / "fresh-home")
    return project


def test_a_checkout_is_all_it_takes(project: ProjectCli, site: Static, tmp_path: Path) -> None:
    project.ok("add", "alpha", "--yes")
    assert {p["registry"] for p in project.document()["packs"]} == {site.url}
    before = project.bytes()
    other = elsewhere(project, tmp_path)
    other.ok("sync", "--locked", "--yes")
    assert other.bytes() == before
    assert other.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}


def test_nothing_is_asked_where_the_lock_is_satisfied(
    project: ProjectCli, site: Static, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "FRESH_SECONDS", 0.0)
    project.ok("add", "alpha", "--yes")
    site.forget()
    for more in ([], ["--locked"], ["--frozen"], ["--offline"]):
        project.ok("sync", *more)
    assert site.asked == []
    site.down = True
    project.ok("sync")


def test_frozen_asks_for_digests_only(project: ProjectCli, site: Static, tmp_path: Path) -> None:
    project.ok("add", "alpha", "--yes")
    site.forget()
    other = elsewhere(project, tmp_path)
    other.ok("sync", "--frozen", "--yes")
    assert other.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}
    assert site.asked
    assert all(p.startswith("/blobs/") or p == "/bases/tiny.json" for p in site.asked), site.asked


def test_what_the_server_sends_has_to_match(
    project: ProjectCli, site: Static, tmp_path: Path
) -> None:
    project.ok("add", "alpha", "--yes")
    pack = next(p for p in project.document()["packs"] if p["name"] == "alpha")
    digest = pack["manifest"]
    path = f"/blobs/{digest[:2]}/{digest}"
    true = (site.root / path.lstrip("/")).read_bytes()
    site.changed[path] = true.replace(b"Answers", b"answers")
    other = elsewhere(project, tmp_path)
    for more in ([], ["--frozen"]):
        result = other("sync", "--yes", *more)
        assert result.code == 5
    assert other.installed() == {}


def test_a_server_that_is_down(project: ProjectCli, site: Static, tmp_path: Path) -> None:
    project.ok("add", "alpha", "--no-sync")
    site.down = True
    other = elsewhere(project, tmp_path)
    for more in ([], ["--frozen"]):
        result = other("sync", "--yes", *more)
        assert result.code == 6, result
    before = other.bytes()
    assert other("add", "beta", "--yes").code == 6
    assert other.bytes() == before


def test_offline_with_nothing_here(project: ProjectCli, site: Static, tmp_path: Path) -> None:
    project.ok("add", "alpha", "--no-sync")
    site.forget()
    other = elsewhere(project, tmp_path)
    for command in (["sync", "--yes"], ["sync", "--frozen", "--yes"], ["lock"]):
        result = other("--offline", *command)
        assert result.code == 6, result
    assert site.asked == []


def test_a_name_of_this_machine(project: ProjectCli, site: Static) -> None:
    project.write("", '[project]\nname = "clinic"\n')
    result = project("add", "alpha", "--registry", "team", "--yes")
    assert result.code == 3
    assert "no registry `team` is configured" in result.err
    project.cli.ok("registry", "add", "team", site.url)
    project.ok("add", "alpha", "--registry", "team", "--yes")
    assert project.installed().keys() == {"alpha", "beta"}


def test_an_address_in_place_of_a_name(project: ProjectCli, site: Static) -> None:
    project.write("", '[project]\nname = "clinic"\n')
    project.ok("add", "alpha", "--registry", site.url, "--yes")
    assert f'registry = "{site.url}"' in project.toml.read_text()
    assert project.installed().keys() == {"alpha", "beta"}
