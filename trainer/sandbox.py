"""Running a program that a model wrote, where it can do no harm.

A process of its own (`trainer/sandboxed.py`) shuts itself in before it runs anything: limits on
time, memory, file sizes and open files; Landlock, so that it writes nowhere but in a scratch folder
and reads nothing but the interpreter; and seccomp, so that it opens no socket, starts no process
and signals none. Its environment is empty. Landlock and seccomp are Linux's; elsewhere nothing is
run unless that is forced.
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
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from specs.errors import UsageError

PROGRAM = Path(__file__).with_name("sandboxed.py")
SECONDS, WALL_SECONDS = 5, 10
"""Processor time, and time on the clock, that a program may take."""
MEMORY_BYTES, FILE_BYTES, OPEN_FILES = 1 << 30, 8 << 20, 64
NOT_SHUT_IN = 97
"""The exit code that says the process could not shut itself in."""


@dataclass(frozen=True)
class Verdict:
    """How a program ended."""

    passed: bool
    reason: str
    """`passed`, `timed out`, or the name of the error it died of."""


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
    _, code = _run("", shut_in=True)
    if code == NOT_SHUT_IN:
        return "this kernel lacks Landlock or seccomp, so that no program can be shut in"
    return None


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
                process.communicate(json.dumps(wanted).encode(), timeout=WALL_SECONDS)
            except subprocess.TimeoutExpired:
                return Verdict(False, "timed out"), process.returncode or -signal.SIGTERM
            finally:
                _end(process)
        with said.open("rb") as stream:
            words = stream.read(200).decode("utf-8", "replace").split()
    if words == [token, "passed"]:
        return Verdict(True, "passed"), process.returncode
    if process.returncode in (-getattr(signal, "SIGXCPU", 0), -getattr(signal, "SIGKILL", 0)):
        return Verdict(False, "timed out"), process.returncode
    reason = words[1] if len(words) == 2 and words[0] == token else "ended early"
    return Verdict(False, reason), process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all it may have started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
