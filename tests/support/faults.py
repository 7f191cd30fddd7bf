"""Commands in processes of their own, which are killed or fail at any step of what they write.

A child is a fork of this process, so that a command starts at once. Every call by which it changes
a file or folder is a step; what is asked of the child happens at one of them. Steps are seen by
Python's audit hooks where there are any, and by wrapping the function where there are none.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import mmap
import os
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from mbpm.__main__ import run

DEADLINE_SECONDS = 120.0
"""No command of these tests may take so long; one that does hangs."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_AUDITED = {
    "os.rename",
    "os.link",
    "os.symlink",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "os.chmod",
    "os.utime",
}
_NO_SPACE = {"create", "write", "os.mkdir", "os.link", "os.rename", "os.symlink"}
"""Steps that need room on the disk."""

AtStep = Callable[[int, str, str], None]
"""What else happens at a step: its number from 1 on, its kind, and the file's name if known."""


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    killed: bool
    code: int
    out: str
    err: str
    steps: int
    """How many steps it began."""
    last: str
    """The last of them, in words."""
    seconds: float

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)


def full_disk(moment: int, *, lasting: bool = True) -> AtStep:
    """From this step on (or at it only), whatever needs room gets none."""
    return failing(errno.ENOSPC, moment, lasting=lasting, kinds=_NO_SPACE)


def failing(
    code: int, moment: int = 1, *, lasting: bool = True, kinds: set[str] | None = None
) -> AtStep:
    """From this step on (or at the first fitting one only), these kinds of steps fail."""
    done = False

    def at(number: int, kind: str, name: str) -> None:
        nonlocal done
        if number >= moment and not done and (kinds is None or kind in kinds):
            done = not lasting
            raise OSError(code, os.strerror(code), name)

    return at


def poor_file_system(*, links: bool = False, locks: int | None = None) -> Callable[[], None]:
    """What to do in a child `before` its command, to give it less than a file system usually has.

    Args:
        links: Whether there are hard links.
        locks: What is answered to whoever locks a file; None where locks work.
    """

    def refuse(code: int) -> Callable[..., None]:
        def called(*_: object, **__: object) -> None:
            raise OSError(code, os.strerror(code))

        return called

    def install() -> None:
        if not links:
            mock.patch.object(os, "link", refuse(errno.EPERM)).start()
        if locks is not None:
            mock.patch("fcntl.flock", refuse(locks)).start()

    return install


class _Recorder:
    """The steps of a child, in memory that its parent sees."""

    SIZE = 4096

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self.SIZE)

    def write(self, number: int, text: str) -> None:
        raw = text.encode("utf-8", "surrogateescape")[-1000:]
        self._memory[: 12 + len(raw)] = struct.pack("<QI", number, len(raw)) + raw

    def read(self) -> tuple[int, str]:
        number, length = struct.unpack("<QI", self._memory[:12])
        return number, self._memory[12 : 12 + length].decode("utf-8", "replace")

    def close(self) -> None:
        self._memory.close()


def start(
    arguments: Sequence[object],
    *,
    home: Path,
    kill: int | None = None,
    since: str = "",
    at: AtStep | None = None,
    within: Path | None = None,
    environ: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Child:
    """Start a command line in a child.

    Args:
        arguments: What comes after `mbpm --home HOME`.
        home: The home.
        kill: Before which step it dies, or in the middle of which where that writes bytes.
        since: The step it is counted from, by the end of its words (`os.rename /current`); the
            first unless given.
        at: What else happens at its steps.
        within: The folder whose changes are steps; the home unless given.
        environ: Changes to the environment.
        before: Called in the child before the command.
    """
    recorder = _Recorder()
    # the child writes to them until it is gone
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            # text of a command that ends belongs to the parent, and nothing else does
            sys.stdout = io.TextIOWrapper(out, "utf-8", write_through=True)
            sys.stderr = io.TextIOWrapper(err, "utf-8", write_through=True)
            sys.stdin = io.StringIO()
            os.environ.update(environ or {})
            if before is not None:
                before()
            _watch(within or home, recorder, kill, since, at)
            code = run(["--home", str(home), *map(str, arguments)])
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    return Child(pid, recorder, out, err)


class Child:
    """A command that is running."""

    def __init__(self, pid: int, recorder: _Recorder, out: Any, err: Any) -> None:
        self.pid = pid
        self._recorder, self._out, self._err = recorder, out, err
        self._began = time.monotonic()

    def kill(self) -> None:
        """Kill it, wherever it is."""
        os.kill(self.pid, signal.SIGKILL)

    def poll(self) -> Ended | None:
        """How it ended, if it has.

        Raises:
            AssertionError: it never ends, or was ended by something else than a kill.
        """
        found, status = os.waitpid(self.pid, os.WNOHANG)
        seconds = time.monotonic() - self._began
        if not found:
            if seconds > DEADLINE_SECONDS:
                self.kill()
                os.waitpid(self.pid, 0)
                raise AssertionError(f"hangs after step {self._recorder.read()}")
            return None
        killed = os.WIFSIGNALED(status)
        assert not killed or os.WTERMSIG(status) == signal.SIGKILL, status
        steps, last = self._recorder.read()
        self._recorder.close()
        texts = []
        for stream in (self._out, self._err):
            stream.seek(0)
            texts.append(stream.read().decode())
            stream.close()
        code = -signal.SIGKILL if killed else os.WEXITSTATUS(status)
        return Ended(killed, code, texts[0], texts[1], steps, last, seconds)

    def wait(self) -> Ended:
        """Wait for its end; raises as `poll`."""
        while (ended := self.poll()) is None:
            time.sleep(0.001)
        return ended


def command(arguments: Sequence[object], *, home: Path, **more: Any) -> Ended:
    """Run a command line in a child to its end; see `start`."""
    return start(arguments, home=home, **more).wait()


def _name_of(handle: int) -> str:
    """What an open file is called, where the system tells."""
    with contextlib.suppress(OSError, TypeError):
        return str(Path(f"/proc/self/fd/{handle}").readlink())
    return ""


def _watch(
    within: Path, recorder: _Recorder, kill: int | None, since: str, at: AtStep | None
) -> None:
    """Count the steps of this process, for good."""
    inside = str(within)
    numbers = itertools.count(1)
    counted_from = 0 if not since else None

    def step(kind: str, name: object, write_half: Callable[[], object] | None = None) -> None:
        text = os.fsdecode(name) if isinstance(name, (str, bytes, os.PathLike)) else ""
        if text.startswith(os.sep) and not text.startswith(inside):
            return
        nonlocal counted_from
        number = next(numbers)
        words = f"{kind} {text.removeprefix(inside)}"
        recorder.write(number, words)
        if counted_from is None and words.endswith(since):
            counted_from = number - 1
        if kill is not None and counted_from is not None and number == counted_from + kill:
            if write_half is not None:
                write_half()
            os.kill(os.getpid(), signal.SIGKILL)
        if at is not None:
            at(number, kind, text)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _AUDITED:
            # where something goes tells more than where it came from
            step(event, arguments[1] if event in ("os.rename", "os.link") else arguments[0])
        elif event == "open":
            path, _mode, flags = arguments
            if isinstance(path, (str, bytes, os.PathLike)) and flags & _WRITING:
                step("open" if os.path.lexists(path) else "create", path)

    class Counted(io.FileIO):
        """A file whose writes are steps."""

        def write(self, data: Any) -> int:
            with memoryview(data) as view, view.cast("B") as piece:
                half = piece[: len(piece) // 2]
                step("write", self.name, lambda: super(Counted, self).write(half))
                half.release()
                return super().write(piece)

    def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **more: Any) -> Any:
        if "b" not in mode or not set(mode) & set("wxa+") or isinstance(file, int):
            return real_open(file, mode, buffering, *rest, **more)
        raw = Counted(file, mode.replace("b", ""))
        if buffering == 0:
            return raw
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    def counted(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(handle: int, *arguments: Any, **more: Any) -> Any:
            step(kind, _name_of(handle))
            return function(handle, *arguments, **more)

        return called

    real_open = io.open
    mock.patch("io.open", opened).start()
    mock.patch("builtins.open", opened).start()
    for name in ("pwrite", "pwritev", "ftruncate", "posix_fallocate", "sendfile", "write"):
        if hasattr(os, name):
            mock.patch.object(os, name, counted("write", getattr(os, name))).start()
    # what the kernel was handed outlives the process: there is nothing to wait for
    mock.patch.object(os, "fsync", counted("fsync", lambda _file: None)).start()
    sys.addaudithook(hook)
