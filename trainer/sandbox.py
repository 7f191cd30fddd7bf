"""Running a program that a model wrote, where it can do no harm.

A process of its own (`trainer/sandboxed.py`) shuts itself in before it runs anything: limits on
time, memory, file sizes and open files; Landlock, so that it writes nowhere but in a scratch folder
and reads nothing but the interpreter; and seccomp, so that it opens no socket, starts no process,
does nothing to others and changes no file's mode, owner or times. Its environment is empty.
Landlock and seccomp are Linux's; elsewhere nothing is run unless that is forced.

This keeps the machine from harm, not the verdict: a program that sets out to be called passed,
instead of passing its tests, can reach the words it is told by.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from specs.errors import UsageError

PROGRAM = Path(__file__).with_name("sandboxed.py")
SECONDS, WALL_SECONDS = 5, 10
"""Processor time, and time on the clock, that a program may take."""
MEMORY_BYTES, FILE_BYTES, OPEN_FILES = 1 << 30, 8 << 20, 64
SCRATCH_BYTES = 64 << 20
"""What its files may take in all, looked at every LOOK_SECONDS; a file counts as 4 KiB at least."""
LOOK_SECONDS = 0.1
NOT_SHUT_IN = 97
"""The exit code that says the process could not shut itself in."""


@dataclass(frozen=True)
class Verdict:
    """How a program ended."""

    passed: bool
    reason: str
    """`passed`, `timed out`, `wrote too much`, or the name of the error it died of."""


def run(code: str, *, forced: bool = False) -> Verdict:
    """Run a Python program; it passes where it comes to its end.

    Only the standard library is there.

    Args:
        forced: Run it with limits alone where it cannot be shut in.

    Raises:
        UsageError: it cannot be shut in here, and `forced` is false.
    """
    if not forced and (missing := unavailable()) is not None:
        raise UsageError(missing, hint="`--unsandboxed` runs programs all the same, at your risk")
    verdict, _ = _run(code, shut_in=unavailable() is None)
    return verdict


@cache
def unavailable() -> str | None:
    """Why nothing can be shut in here; None where it can."""
    if sys.platform != "linux":
        return f"programs can be shut in on Linux only, and this is {sys.platform}"
    verdict, code = _run("", shut_in=True)
    if code == NOT_SHUT_IN:
        return "this kernel lacks Landlock or seccomp, so that no program can be shut in"
    return None if verdict.passed else f"even an empty program, shut in, fails: {verdict.reason}"


def _run(code: str, *, shut_in: bool) -> tuple[Verdict, int]:
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="mbpm-sandbox-") as folder:
        scratch, said = Path(folder, "scratch"), Path(folder, "verdict")
        scratch.mkdir()
        wanted = {
            "code": code,
            "token": token,
            "shut_in": shut_in,
            "scratch": str(scratch),
            "seconds": SECONDS,
            "memory": MEMORY_BYTES,
            "file_size": FILE_BYTES,
            "open_files": OPEN_FILES,
        }
        with said.open("wb") as out:
            process = subprocess.Popen(
                # isolated, without site-packages, writing no bytecode
                [sys.executable, "-I", "-S", "-B", str(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.DEVNULL,
                cwd=scratch,
                env={},
                start_new_session=True,
            )
            try:
                stopped = _watch(process, json.dumps(wanted).encode(), scratch)
            finally:
                _end(process)
        if stopped is not None:
            return Verdict(False, stopped), process.returncode
        with said.open("rb") as stream:
            words = stream.read(200).decode("utf-8", "replace").split()
    if words == [token, "passed"]:
        return Verdict(True, "passed"), process.returncode
    if process.returncode in (-getattr(signal, "SIGXCPU", 0), -getattr(signal, "SIGKILL", 0)):
        return Verdict(False, "timed out"), process.returncode
    reason = words[1] if len(words) == 2 and words[0] == token else "ended early"
    return Verdict(False, reason), process.returncode


def _watch(process: subprocess.Popen[bytes], wanted: bytes, scratch: Path) -> str | None:
    """Wait until it ends; why it is to be ended, where it takes too much."""
    given: bytes | None = wanted
    until = time.monotonic() + WALL_SECONDS
    while time.monotonic() < until:
        try:
            process.communicate(given, timeout=LOOK_SECONDS)
            return None
        except subprocess.TimeoutExpired:
            given = None  # what is left of it goes on being written
        if _taken(scratch) > SCRATCH_BYTES:
            return "wrote too much"
    return "timed out"


def _taken(scratch: Path) -> int:
    taken = 0
    for file in os.scandir(scratch):
        with contextlib.suppress(FileNotFoundError):
            taken += max(4096, file.stat(follow_symlinks=False).st_size)
    return taken


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all it may have started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
