"""The lock for file systems without locks: one holder, whoever is killed, and nothing left."""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import time
from pathlib import Path

import pytest

from mbpm.folder_lock import FolderLock
from mbpm.processes import alive
from tests.support import faults
from tests.support.cli import Cli

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_child(work: object) -> int:
    """Run something in a fork; its number."""
    assert callable(work)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def test_one_at_a_time(tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")

    def work() -> None:
        for _ in range(10):
            lock = FolderLock(tmp_path / "lock.held")
            lock.acquire(60)
            value = int(count.read_text())
            time.sleep(0.001)
            count.write_text(str(value + 1))
            lock.release()

    children = [in_child(work) for _ in range(4)]
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert count.read_text() == "40"
    assert [p.name for p in tmp_path.iterdir()] == ["count"]


def test_holder_that_lives_is_waited_for(tmp_path: Path) -> None:
    place = tmp_path / "lock.held"
    holder = FolderLock(place)
    holder.acquire(0)
    for seconds in (0, 0.1):
        with pytest.raises(TimeoutError):
            FolderLock(place).acquire(seconds)
    assert [p.name for p in tmp_path.iterdir()] == ["lock.held"]
    holder.release()
    FolderLock(place).acquire(0)


@pytest.mark.parametrize("owner", ["dead", "zombie", "damaged", "namesake"])
def test_holder_that_is_dead(tmp_path: Path, owner: str) -> None:
    place = tmp_path / "lock.held"
    pid = in_child(lambda: FolderLock(place).acquire(0))
    if owner == "zombie":
        wait_for_zombie(pid)
    else:
        os.waitpid(pid, 0)
    assert place.is_dir()
    if owner == "damaged":
        (place / "owner.json").write_text("{")
        with pytest.raises(TimeoutError):
            FolderLock(place).acquire(0)
        return
    if owner == "namesake":
        if not Path("/proc/self/stat").exists():
            pytest.skip("this system does not tell when a process began")
        record = {"pid": os.getpid(), "host": platform.node(), "since": 1.0}
        (place / "owner.json").write_text(json.dumps(record))
    FolderLock(place).acquire(1)
    if owner == "zombie":
        os.waitpid(pid, 0)


def wait_for_zombie(pid: int) -> None:
    deadline = time.monotonic() + 20
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        pytest.skip("this system does not tell of zombies")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_dead_but_not_buried_is_not_alive() -> None:
    pid = in_child(lambda: None)
    wait_for_zombie(pid)
    os.kill(pid, 0)
    assert not alive(pid, time.time())
    os.waitpid(pid, 0)
    assert alive(os.getpid(), time.time())


def test_holder_on_another_machine_is_not_judged(tmp_path: Path) -> None:
    place = tmp_path / "lock.held"
    FolderLock(place).acquire(0)
    record = {"pid": 1, "host": "elsewhere", "since": 0.0}
    (place / "owner.json").write_text(json.dumps(record))
    with pytest.raises(TimeoutError):
        FolderLock(place).acquire(0)


def test_killed_at_every_step_of_taking_it(cli: Cli) -> None:
    """The next command goes on at once, and nothing is left of the killed one."""
    poor = faults.poor_file_system(links=True, locks=errno.ENOLCK)
    environ = {"MBPM_LOCK_TIMEOUT": "0"}
    for moment in range(1, 100):
        (cli.home / "staging").mkdir(parents=True, exist_ok=True)
        killed = faults.command(
            ["gc", "--yes"], home=cli.home, before=poor, kill=moment, environ=environ
        )
        (cli.home / "staging").mkdir(parents=True, exist_ok=True)
        ended = faults.command(["gc", "--yes"], home=cli.home, before=poor, environ=environ)
        assert ended.code == 0, f"step {moment} ({killed.last}): {ended.err}"
        assert [p.name for p in cli.home.iterdir()] == ["lock"], f"step {moment}: {killed.last}"
        if not killed.killed:
            assert moment > 8
            return
    pytest.fail("the command never ended")


def test_waits_for_a_writer_and_names_it(cli: Cli) -> None:
    poor = faults.poor_file_system(links=True, locks=errno.ENOLCK)
    (cli.home / "staging").mkdir(parents=True)
    stopped = faults.start(["gc"], home=cli.home, before=poor, at=stop_while_it_is_held)
    try:
        os.waitpid(stopped.pid, os.WUNTRACED)
        environ = {"MBPM_LOCK_TIMEOUT": "0.1"}
        ended = faults.command(["gc", "--yes"], home=cli.home, before=poor, environ=environ)
        assert ended.code == 1
        assert f"is being changed by process {stopped.pid} on {platform.node()}" in ended.err
        assert str(cli.home / "lock.held") in ended.err
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    assert stopped.wait().code == 0


def stop_while_it_is_held(_number: int, kind: str, name: str) -> None:
    if kind == "os.rmdir" and name.endswith("/staging"):
        os.kill(os.getpid(), signal.SIGSTOP)
