"""What programs that a model might write may not do. Linux shuts them in; elsewhere these skip."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import pytest

from specs.errors import UsageError
from trainer import sandbox
from trainer.sandbox import run, unavailable

shut_in = pytest.mark.skipif(
    sys.platform != "linux" or unavailable() is not None, reason=str(unavailable())
)


@shut_in
@pytest.mark.parametrize(
    "code",
    [
        "import math\nassert math.sqrt(4) == 2",
        "open('x', 'w').write('1')\nassert open('x').read() == '1'",
        "import os\nassert not set(os.environ) - {'LC_CTYPE'}",
        "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
        "import json, random, re, datetime, decimal, sqlite3\ndatetime.datetime.now().astimezone()",
        "print('x' * 100_000)",
    ],
)
def test_what_a_program_may_do(code: str) -> None:
    assert run(code).reason == "passed"


@shut_in
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("assert 1 == 2", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("import sys\nsys.exit(0)", "SystemExit"),
        ("import os\nos._exit(0)", "ended early"),
        ("x = bytearray(3 << 30)", "MemoryError"),
        ("import socket\nsocket.socket()", "PermissionError"),
        ("import socket\nsocket.socketpair()", "PermissionError"),
        ("import os\nos.fork()", "PermissionError"),
        ("import subprocess\nsubprocess.run(['true'])", "PermissionError"),
        ("import os\nos.execv('/bin/true', ['true'])", "PermissionError"),
        ("import os\nos.kill(os.getppid(), 0)", "PermissionError"),
        ("import os, resource\nresource.prlimit(os.getppid(), 4, (0, 0))", "PermissionError"),
        ("import os\nos.sched_setaffinity(os.getppid(), {0})", "PermissionError"),
        ("import fcntl, os\nfcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())", "PermissionError"),
        ("import fcntl\nfcntl.fcntl(0, 10, 9)", "PermissionError"),
        ("import ctypes\nassert ctypes.CDLL(None).shmget(0, 4096, 0o1600) >= 0", "AssertionError"),
        ("import os\nos.chroot('.')", "PermissionError"),
        ("import os\nos.mkdir('d')", "PermissionError"),
        ("for i in range(1000): open(str(i), 'wb').write(bytes(8 << 20))", "wrote too much"),
        ("open('/etc/passwd')", "PermissionError"),
        ("import os\nos.listdir('/')", "PermissionError"),
        ("open('x', 'wb').write(bytes(20 << 20))", "OSError"),
        ("files = [open('/dev/null') for _ in range(200)]", "OSError"),
        ("import numpy", "ModuleNotFoundError"),
    ],
)
def test_what_a_program_may_not_do(code: str, reason: str) -> None:
    verdict = run(code)
    assert (verdict.passed, verdict.reason) == (False, reason)


@shut_in
def test_nothing_is_written_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    mine, before = str(tmp_path / "mine"), (tmp_path / "mine").stat()
    for code in (
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"open({str(tmp_path / 'mine')!r}, 'a')",
        f"import os; os.remove({str(tmp_path / 'mine')!r})",
        f"import os; os.mkdir({str(tmp_path / 'folder')!r})",
        f"import os; os.symlink('/', {str(tmp_path / 'link')!r})",
        f"import os; os.chmod({mine!r}, 0)",
        f"import os; os.chown({mine!r}, os.getuid(), os.getgid())",
        f"import os; os.utime({mine!r}, (1, 1))",
        f"import os; os.truncate({mine!r}, 0)",
        f"import os; os.setxattr({mine!r}, 'user.a', b'1')",
    ):
        assert run(code).reason == "PermissionError", code
    assert [f.name for f in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text() == "mine"
    after = (tmp_path / "mine").stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


@shut_in
def test_limits_cannot_be_lifted() -> None:
    code = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
    # root may raise a hard limit elsewhere, but the memory is asked for all the same
    assert not run(code + "x = bytearray(5 << 30)").passed


def test_a_busy_program_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    assert run("while True: pass", forced=True).reason == "timed out"


def test_a_sleeper_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 1)
    assert run("import time\ntime.sleep(60)", forced=True).reason == "timed out"


def test_where_nothing_can_be_shut_in_it_is_refused_unless_forced() -> None:
    with mock.patch.object(sandbox, "unavailable", lambda: "there is no Landlock here"):
        with pytest.raises(UsageError, match="no Landlock") as caught:
            run("pass")
        assert "--unsandboxed" in str(caught.value.hint)
        assert run("assert True", forced=True).passed
        assert run("assert False", forced=True).reason == "AssertionError"


def test_other_systems_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")  # type: ignore[attr-defined]
    unavailable.cache_clear()
    try:
        assert "Linux only, and this is darwin" in str(unavailable())
    finally:
        monkeypatch.undo()
        unavailable.cache_clear()
