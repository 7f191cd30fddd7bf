"""Homes in odd places, on odd file systems and at odd times."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.packs import pack_folder

Publish = Callable[..., None]


def whole_life(cli: Cli, registry: Path) -> None:
    """Everything that writes, once."""
    given = ("--registry", registry, "--yes")
    cli.ok("install", "alpha@=1.0.0", *given)
    cli.ok("upgrade", *given)
    cli.ok("hold", "alpha")
    cli.ok("undo", "--yes")
    cli.ok("repair", *given)
    assert cli.installed() == {"alpha": "2.0.0"}
    cli.ok("verify")
    cli.ok("rollback", "1", "--yes")
    cli.ok("purge", "alpha", "--yes")
    cli.ok("autoremove", "--yes")
    cli.ok("gc", "--yes")
    assert [f for f in (cli.home / "store").rglob("*") if f.is_file()] == []


@pytest.fixture
def two(registry: Path, publish: Publish) -> Path:
    """A registry with two versions of alpha."""
    publish("alpha")
    publish("alpha", "2.0.0")
    return registry


@pytest.mark.parametrize(
    "name",
    ["my packs", "Päckchen 家 🏠", "two\nlines", "tab\there", "-rf", "a'b\"c", "%s{0}", ".hid"],
)
def test_any_name(tmp_path: Path, two: Path, name: str) -> None:
    whole_life(Cli(tmp_path / name / "home"), two)


def test_link_to_a_folder(tmp_path: Path, two: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    whole_life(Cli(tmp_path / "link"), two)


@pytest.mark.parametrize("place", ["file", "file/below/it"])
def test_file_in_the_way(tmp_path: Path, two: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    cli = Cli(tmp_path / place)
    for words in (["list"], ["verify"], ["gc", "--yes"], ["install", "alpha", "--registry", two]):
        result = cli(*words)
        assert result.code == 2
        assert f"error: {tmp_path / 'file'}: is not a directory" in result.err
        assert "`--home DIR`" in result.err
    assert (tmp_path / "file").read_text() == "mine"


def test_link_to_nowhere(tmp_path: Path, two: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "away")
    cli = Cli(link)
    result = cli("install", "alpha", "--registry", two, "--yes")
    assert result.code == 2
    assert f"{link}: links to {tmp_path / 'away'}, which is not there" in result.err
    assert link.is_symlink()
    (tmp_path / "away").mkdir()
    whole_life(cli, two)


def test_link_that_goes_round(tmp_path: Path, two: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(link)
    result = Cli(link)("install", "alpha", "--registry", two, "--yes")
    assert result.code in (1, 2)
    assert str(link) in result.err


def test_name_that_is_too_long(tmp_path: Path, two: Path) -> None:
    for path in (tmp_path / ("x" * 300), tmp_path.joinpath(*["y" * 100] * 45)):
        result = Cli(path)("install", "alpha", "--registry", two, "--yes")
        assert result.code == 1
        assert "name too long" in result.err


def test_name_that_is_no_text(tmp_path: Path, two: Path) -> None:
    odd = Path(f"{tmp_path}/\udcff")
    try:
        odd.mkdir()
    except (OSError, UnicodeError):
        pytest.skip("the file system takes no such name")
    result = Cli(odd)("install", "alpha", "--registry", two, "--yes")
    assert result.code == 2 and "is not UTF-8" in result.err
    cli = Cli(tmp_path / "home")
    folder = pack_folder(odd / "omega", "omega")
    for words in (
        ["install", folder],
        ["install", "alpha", "--registry", shutil.copytree(two, odd / "r")],
    ):
        result = cli(*words, "--yes")
        assert result.code == 2 and "is not UTF-8" in result.err
    assert cli.installed() == {}


def test_moved_home(cli: Cli, two: Path) -> None:
    cli.ok("install", "alpha@=1.0.0", "--registry", two, "--yes")
    moved = Cli(cli.home.rename(cli.home.with_name("elsewhere")))
    moved.ok("verify")
    moved.ok("upgrade", "--yes")
    moved.ok("undo", "--yes")
    assert moved.installed() == {"alpha": "1.0.0"}
    assert not cli.home.exists()


@pytest.mark.parametrize("text", ["[registries", "format = 9\n", None])
def test_damaged_list_of_registries(cli: Cli, two: Path, text: str | None) -> None:
    """What is installed is shown and removed all the same; who needs the list names it."""
    cli.ok("install", "alpha", "--registry", two, "--yes")
    file = cli.home / "registries.toml"
    file.mkdir() if text is None else file.write_text(text)
    for words in (["list"], ["history"], ["history", "1"], ["verify"], ["tree"], ["hold", "alpha"]):
        cli.ok(*words)
    for words in (["upgrade"], ["search", "alpha"], ["registry", "list"]):
        result = cli(*words)
        assert result.code in (1, 2), f"{words}: {result}"
        assert f"error: {file}: " in result.err
    cli.ok("remove", "alpha", "--yes")
    cli.ok("gc", "--yes")
