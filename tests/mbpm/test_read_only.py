"""A home that cannot be written to: readers work, writers say why, and nothing is lost."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import faults
from tests.support.cli import Cli

Publish = Callable[..., None]

READERS = (
    ["list"],
    ["list", "--json"],
    ["history"],
    ["verify"],
    ["search", "alpha"],
    ["show", "alpha"],
    ["files", "alpha"],
    ["tree"],
    ["why", "alpha"],
    ["outdated"],
    ["base", "list"],
    ["profile", "list"],
    ["info"],
    ["gc", "--dry-run"],
    ["clean", "--dry-run"],
    ["remove", "alpha", "--dry-run"],
    ["upgrade", "--dry-run"],
)
WRITERS = (
    ["upgrade", "--yes"],
    ["remove", "alpha", "--yes"],
    ["purge", "alpha", "--yes"],
    ["hold", "alpha"],
    ["undo", "--yes"],
    ["rollback", "0", "--yes"],
    ["gc", "--yes"],
)
IDLE = (["install", "alpha"], ["unhold", "alpha"], ["repair", "--yes"], ["autoremove", "--yes"])
"""What has nothing to do, and so need not write."""


@pytest.fixture
def installed(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """A home with alpha 2.0.0, from 1.0.0, where there is 3.0.0."""
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    publish("alpha", "2.0.0")
    cli.ok("upgrade", "--yes")
    publish("alpha", "3.0.0")
    return cli


def snapshot(home: Path) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in home.rglob("*") if f.is_file()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO])
def test_every_way_of_writing_refused(installed: Cli, code: int) -> None:
    before = snapshot(installed.home)
    for words in (*READERS, *IDLE):
        ended = faults.command(words, home=installed.home, at=faults.failing(code))
        assert ended.code == 0, f"{words}: {ended.err}"
    for words in WRITERS:
        ended = faults.command(words, home=installed.home, at=faults.failing(code))
        assert ended.code == 1, f"{words}: {ended}"
        assert f"error: {installed.home}" in ended.err
        assert os.strerror(code).lower() in ended.err
        if code != errno.EIO:
            assert "`--home DIR`" in ended.err
    assert snapshot(installed.home) == before
    installed.ok("verify")
    installed.ok("upgrade", "--yes")


@pytest.fixture
def read_only(installed: Cli) -> Iterator[Cli]:
    """The same home on a file system that is mounted read-only."""
    place = str(installed.home)
    for words in (["mount", "--bind", place, place], ["mount", "-o", "remount,bind,ro", place]):
        try:
            done = subprocess.run(words, capture_output=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            pytest.skip("there is no `mount`")
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")
    try:
        yield installed
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_file_system_that_is_really_read_only(read_only: Cli) -> None:
    for words in (*READERS, *IDLE):
        read_only.ok(*words)
    for words in WRITERS:
        result = read_only(*words)
        assert result.code == 1, f"{words}: {result}"
        assert "read-only file system" in result.err
        assert "`--home DIR`" in result.err
    assert read_only.installed() == {"alpha": "2.0.0"}


def test_first_install_where_nothing_may_be_made(tmp_path: Path, registry: Path) -> None:
    home = tmp_path / "home"
    for code in (errno.EROFS, errno.EACCES):
        words = ["base", "install", "tiny", "--registry", registry, "--yes"]
        ended = faults.command(words, home=home, at=faults.failing(code))
        assert ended.code == 1
        assert f"error: {home}: {os.strerror(code).lower()}" in ended.err
        assert "`--home DIR`" in ended.err
    assert not home.exists()
