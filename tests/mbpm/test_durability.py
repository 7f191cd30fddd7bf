"""A machine that loses its power: what a change counts on was on the disk before it counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import faults
from tests.support.cli import Cli

Publish = Callable[..., None]

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="needs fork, and names of open files"
)
Step = tuple[str, str]
"""Kind, and the file's path in the home."""


def steps_of(words: list[object], cli: Cli, log: Path, *, links: bool = True) -> list[Step]:
    """What a command does to files, in order."""

    def note(_number: int, kind: str, name: str) -> None:
        with log.open("a") as stream:
            stream.write(f"{kind}\t{name}\n")

    poor = faults.poor_file_system(links=links)
    ended = faults.command(words, home=cli.home, at=note, before=poor)
    assert ended.code == 0, ended.err
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    return [(kind, name.removeprefix(str(cli.home) + "/")) for kind, name in rows]


def renamed(steps: list[Step]) -> list[tuple[int, str]]:
    """Where files got their final names, and which."""
    final = re.compile(r"(.*/)?current|generations/\d+\.json|journal\.json|store/blobs/.*")
    return [(i, n) for i, (k, n) in enumerate(steps) if k == "os.rename" and final.fullmatch(n)]


@pytest.fixture
def steps(cli: Cli, registry: Path, publish: Publish, tmp_path: Path) -> list[Step]:
    """Those of a first install."""
    publish("alpha")
    words = ["install", "alpha", "--registry", registry, "--yes"]
    return steps_of(words, cli, tmp_path / "log")


def test_bytes_are_on_the_disk_before_they_have_a_final_name(steps: list[Step]) -> None:
    seen = renamed(steps)
    assert {n.split("/")[0] for _, n in seen} == {"current", "generations", "journal.json", "store"}
    for at, name in seen:
        base = name.rpartition("/")[2]
        before = [
            (i, kind)
            for i, (kind, file) in enumerate(steps[:at])
            if re.fullmatch(rf"\.?{re.escape(base)}\.[^/]+", file.rpartition("/")[2])
        ]
        written = [i for i, kind in before if kind == "write"]
        synced = [i for i, kind in before if kind == "fsync"]
        assert written and synced, name
        assert max(synced) > max(written), name


def test_names_are_on_the_disk_before_the_change_counts(steps: list[Step]) -> None:
    (flip,) = [i for i, name in renamed(steps) if name == "current"]
    names = [(i, name) for i, name in renamed(steps) if i < flip]
    made = re.compile(r"store/(packs|bases)/[0-9a-f]{64}")
    names += [
        (i, name)
        for i, (kind, name) in enumerate(steps[:flip])
        if kind == "os.rename" and made.fullmatch(name)
    ]
    assert len(names) > 5
    for at, name in names:
        folder = name.rpartition("/")[0] or "."
        synced = [
            i for i, (k, n) in enumerate(steps) if k == "fsync" and in_home(n) == folder and i > at
        ]
        assert synced and synced[0] < flip, name
    (after,) = [
        i for i, (k, n) in enumerate(steps) if k == "fsync" and in_home(n) == "." and i > flip
    ][:1]
    assert after > flip


def in_home(name: str) -> str:
    """The home itself has no name in the home."""
    return "." if Path(name).is_absolute() else name


@pytest.mark.parametrize("links", [True, False])
def test_folders_are_on_the_disk_before_the_change_counts(
    cli: Cli, registry: Path, publish: Publish, tmp_path: Path, links: bool
) -> None:
    """Their entries, and their files where they are copies."""
    publish("alpha")
    words = ["install", "alpha", "--registry", registry, "--yes"]
    steps = steps_of(words, cli, tmp_path / "log", links=links)
    (flip,) = [i for i, name in renamed(steps) if name == "current"]
    folders = {
        n for k, n in steps[:flip] if k == "os.mkdir" and re.fullmatch(r"staging/[0-9a-f]{32}", n)
    }
    assert len(folders) == 2, "a pack and a base"
    synced = [n for k, n in steps[:flip] if k == "fsync"]
    assert folders <= set(synced)
    if not links:
        copies = {n for k, n in steps[:flip] if k == "create" and n.rpartition("/")[0] in folders}
        assert len(copies) == 7 and copies <= set(synced)
