"""`mbpm add`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.packs import pack_folder, published
from tests.support.projects import HEAD, ProjectCli

Publish = Callable[..., None]


@pytest.fixture
def project(cli: Cli, tmp_path: Path, registry: Path) -> ProjectCli:
    return ProjectCli(cli, tmp_path / "clinic")


def test_wants_locks_and_installs(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    publish("alpha", "1.2.0")
    result = project.ok("add", "alpha", "--yes")
    assert 'alpha = "^1.2.0"' in project.toml.read_text()
    assert project.locked() == {"alpha": "1.2.0"}
    assert project.installed() == {"alpha": "1.2.0"}
    assert "hint: `mbpm --profile clinic chat` uses it" in result.err
    assert project.installed("default") == {}


def test_keeps_the_file_as_it_is_written(project: ProjectCli, publish: Publish) -> None:
    for name in ("alpha", "beta"):
        publish(name)
    text = HEAD + '\n[packs]\n# first\nbeta = "1"   # why\n\n[machine]\nram = 0.1\n'
    project.toml.write_text(text)
    project.ok("add", "alpha", "--yes")
    assert project.toml.read_text() == text.replace("# why\n", '# why\nalpha = "^1.0.0"\n')


def test_a_requirement_is_kept_as_typed(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    publish("alpha", "2.0.0")
    project.ok("add", "alpha@ <2", "--yes")
    assert 'alpha = "<2"' in project.toml.read_text()
    assert project.installed() == {"alpha": "1.0.0"}


def test_several_and_what_they_require(project: ProjectCli, publish: Publish) -> None:
    publish("law-basics")
    publish("legal", requires={"law-basics": "^1"})
    publish("medical", "0.3.1")
    project.ok("add", "legal", "medical", "--yes")
    assert project.toml.read_text().endswith('legal = "^1.0.0"\nmedical = "^0.3.1"\n')
    packs = {p["name"]: p for p in project.document()["packs"]}
    assert [n for n, p in packs.items() if p.get("auto")] == ["law-basics"]
    assert packs["legal"]["requires"] == {"law-basics": "^1"}
    assert project.installed().keys() == packs.keys()


def test_what_is_locked_stays(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    project.ok("add", "alpha", "--yes")
    publish("alpha", "1.1.0")
    publish("beta")
    project.ok("add", "beta", "--yes")
    assert project.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}


def test_a_pack_that_is_there_already(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    project.ok("add", "alpha", "--yes")
    publish("alpha", "1.1.0")
    before = project.bytes()
    result = project.ok("add", "alpha", "--yes")
    assert "alpha is in mbpm.toml already" in result.err
    assert project.bytes() == before
    project.ok("add", "alpha@^1.1", "--yes")
    assert project.installed() == {"alpha": "1.1.0"}
    project.ok("add", "alpha@=1.0.0", "--yes")
    assert project.installed() == {"alpha": "1.0.0"}
    assert project.toml.read_text().count("alpha") == 1


def test_a_pack_that_came_for_others_becomes_wanted(project: ProjectCli, publish: Publish) -> None:
    publish("law-basics")
    publish("legal", requires={"law-basics": "^1"})
    project.ok("add", "legal", "--yes")
    project.ok("add", "law-basics", "--yes")
    assert not any(p.get("auto") for p in project.document()["packs"])
    listed = project.cli.ok("--profile", "clinic", "list", "--json").json["packs"]
    assert not any(p["auto"] for p in listed)


def test_nothing_is_written_where_nothing_fits(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    publish("beta", conflicts={"alpha": "*"})
    project.ok("add", "alpha", "--yes")
    before = project.bytes()
    result = project("add", "beta", "--yes")
    assert result.code == 4
    assert "conflicts" in result.err
    assert project.bytes() == before
    assert project.installed() == {"alpha": "1.0.0"}


def test_a_name_nobody_knows(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    before = project.bytes()
    result = project("add", "alpa", "--yes")
    assert result.code == 3
    assert "did you mean `alpha`?" in result.err
    assert project.bytes() == before


def test_the_answer_no(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    before = project.bytes()
    result = project("add", "alpha", answer="n\n")
    assert result.code == 1
    assert "mbpm.toml and mbpm.lock are as they were" in result.err
    assert project.bytes() == before


def test_what_cannot_be_fetched(project: ProjectCli, publish: Publish, registry: Path) -> None:
    publish("alpha")
    before = project.bytes()
    project.ok("add", "alpha", "--dry-run")
    for blob in (registry / "blobs").rglob("*"):
        if blob.is_file() and blob.stat().st_size > 500 and b"manifest" not in blob.read_bytes():
            blob.unlink()
    assert project("add", "alpha", "--yes").code != 0
    assert project.bytes() == before
    assert project.installed() == {}


def test_dry_run(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    before = project.bytes()
    document = project.ok("add", "alpha", "-s", "--json").json
    assert document["lock"]["changes"] == [
        {"kind": "pack", "name": "alpha", "old": None, "new": "1.0.0"},
        {"kind": "base", "name": "tiny", "old": None, "new": None},
    ]
    assert document["plan"]["packs"][0]["action"] == "install"
    assert document["changed"] is False
    assert project.bytes() == before
    assert project.installed() == {}


def test_only_the_files(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    result = project.ok("add", "alpha", "--no-sync")
    assert result.out == "added    alpha 1.0.0\nadded    base tiny\n"
    assert project.locked() == {"alpha": "1.0.0"}
    assert project.installed() == {}


def test_from_one_registry_only(project: ProjectCli, publish: Publish, tmp_path: Path) -> None:
    publish("alpha", "9.0.0")
    other = project.folder / "packs"
    shutil.copytree(tmp_path / "registry", other)
    shutil.rmtree(other / "index")
    published(pack_folder(tmp_path / "own", "alpha", "1.0.0"), other)
    project.ok("add", "alpha", "--registry", other, "--yes")
    assert 'alpha = { version = "^1.0.0", registry = "./packs" }' in project.toml.read_text()
    assert project.installed() == {"alpha": "1.0.0"}
    assert project.document()["packs"][0]["registry"] == "./packs"
    publish("beta")
    result = project("add", "beta", "--registry", "./packs", "--yes")
    assert result.code == 3


def test_a_registry_of_the_project_by_its_name(project: ProjectCli, publish: Publish) -> None:
    publish("alpha")
    project.ok("add", "alpha", "--registry", "local", "--yes")
    assert 'registry = "local"' in project.toml.read_text()
    assert project.document()["packs"][0]["registry"] == "../registry"


def test_a_folder_is_no_pack_of_a_project(project: ProjectCli, tmp_path: Path) -> None:
    pack_folder(tmp_path / "mine", "mine")
    result = project("add", tmp_path / "mine")
    assert result.code == 2
    assert "a project takes packs from registries" in result.err


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("alpha@one", "'one' is not a version requirement"),
        ("alpha@", "'' is not a version requirement"),
        ("Alpha", "'Alpha' is not a valid name"),
    ],
)
def test_what_is_no_target(project: ProjectCli, target: str, said: str) -> None:
    result = project("add", target)
    assert result.code == 2
    assert said in result.err


def test_a_pre_release_has_to_be_asked_for(project: ProjectCli, publish: Publish) -> None:
    publish("alpha", "1.0.0-rc.1")
    assert project("add", "alpha", "--yes").code == 4
    project.ok("add", "alpha@^1.0.0-rc.1", "--yes")
    assert project.installed() == {"alpha": "1.0.0-rc.1"}


def test_build_metadata_is_no_part_of_a_requirement(project: ProjectCli, publish: Publish) -> None:
    publish("alpha", "1.0.0+cpu")
    project.ok("add", "alpha", "--yes")
    assert 'alpha = "^1.0.0"' in project.toml.read_text()


def test_somebody_else_writes_meanwhile(
    project: ProjectCli, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mbpm.project import wanting

    publish("alpha")
    find = wanting.find_versions

    def slowly(*arguments: object, **more: object) -> object:
        project.toml.write_text(HEAD + "# theirs\n")
        return find(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(wanting, "find_versions", slowly)
    result = project("add", "alpha", "--yes")
    assert result.code == 1
    assert "was changed by somebody else in the meantime" in result.err
    assert project.toml.read_text() == HEAD + "# theirs\n"
    assert not project.lock.exists()


def test_a_file_that_cannot_be_written(
    project: ProjectCli, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mbpm import files

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(target))

    publish("alpha")
    before = project.bytes()
    monkeypatch.setattr(files, "replace", refuse)
    result = project("add", "alpha", "--no-sync")
    assert result.code == 1
    assert "mbpm.toml: cannot be written (permission denied); nothing was changed" in result.err
    assert project.bytes() == before
    assert {p.name for p in project.folder.iterdir()} == {"mbpm.toml"}


def test_no_project(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli("add", "alpha")
    assert result.code == 3
    assert "there is no mbpm.toml in" in result.err
    assert "`mbpm init` begins a project here" in result.err
    result = cli("add", "alpha", "--project", tmp_path)
    assert result.code == 3
    assert "is no project" in result.err


def test_found_from_below(
    project: ProjectCli, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("alpha")
    below = project.folder / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    project.cli.ok("add", "alpha", "--yes")
    assert project.locked() == {"alpha": "1.0.0"}


def test_a_linked_file_stays_a_link(project: ProjectCli, publish: Publish, tmp_path: Path) -> None:
    publish("alpha")
    real = tmp_path / "real.toml"
    project.toml.rename(real)
    try:
        project.toml.symlink_to(real)
    except OSError:
        pytest.skip("no links here")
    project.ok("add", "alpha", "--yes")
    assert project.toml.is_symlink()
    assert "alpha" in real.read_text()


def test_nobody_reads_what_it_says_of_a_change_that_counts(
    project: ProjectCli, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object) -> None:
        raise BrokenPipeError

    publish("alpha")
    monkeypatch.setattr("mbpm.change.run.done", closed)
    assert project("add", "alpha", "--yes").code == 1
    monkeypatch.undo()
    assert project.installed() == project.locked() == {"alpha": "1.0.0"}
    project.ok("sync", "--locked", "--yes")
