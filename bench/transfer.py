"""`transfer`: whole-process time of fetching a large file, going on after a kill, doing nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import made_up
from bench.blob_server import BlobServer, serving
from bench.peers import program, script
from bench.report import Case, Report, machine
from specs.errors import MbpmError

SIZE = 1_000_000_000
RESUME_RATE = 150_000_000
"""Bytes a second and connection in the resume case, so that half-way can be hit."""
NOTHING_ROUNDS = 11
INSTALLED = "httpx"
"""A package of this environment, for installing what is installed."""


@dataclass
class Side:
    """One way to bring the file here."""

    name: str
    steps: Callable[[Path], Sequence[Sequence[str]]]
    """A fresh folder -> the commands, run one after the other."""
    environment: dict[str, str] = field(default_factory=dict)
    missing: str | None = None
    """Why it cannot be measured here."""
    seconds: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)


def transfer(rounds: int, size: int = SIZE) -> Report:
    """Fetch from a server on the loopback interface, beside what does the same job elsewhere.

    Raises:
        MbpmError: a command failed.
    """
    base = Path(".cache")
    base.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base.resolve(), prefix="bench-transfer-") as name:
        work = Path(name)
        root = work / "www"
        root.mkdir()
        blob = made_up.weights(root / made_up.FILE, size)
        made_up.wheel(root, root / made_up.FILE)
        with serving(root) as server:
            made_up.registry(root / "registry", blob, f"{server.url}/{made_up.FILE}", work / "pack")
            sides = _sides(server, work)
            for number in range(rounds + 1):
                for side in sides:
                    if side.missing is None:
                        taken = _timed(side, work)
                        # the first round warms caches
                        side.seconds += [taken] if number else []
            server.limit(RESUME_RATE)
            for _ in range(rounds):
                for side in sides:
                    if side.missing is None and side.name in _RESUMED:
                        side.again.append(_killed_half_way(side, server, work, size))
            server.limit(0)
            cases = [*_speed(sides, size, rounds), *_resume(sides)]
            cases += _nothing(f"{server.url}/registry", work)
    notes = [f"{side.name}: {side.missing}" for side in sides if side.missing]
    return Report("transfer", machine(), cases, notes)


_RESUMED = ("mbpm", "curl -C -", "pip download", "uv pip install", "hf download")


def _sides(server: BlobServer, work: Path) -> list[Side]:
    url = f"{server.url}/{made_up.FILE}"
    index = f"{server.url}/simple/"
    mbpm, curl, uv, hf = script("mbpm"), program("curl"), program("uv"), program("hf")
    digest, openssl = program("sha256sum"), program("openssl")

    def ours(folder: Path) -> list[list[str]]:
        command = [*mbpm, "--home", str(folder / "home"), "base", "install", made_up.BASE]
        return [[*command, "--registry", f"{server.url}/registry", "--yes"]]

    def curled(*more: Sequence[str]) -> Callable[[Path], list[list[str]]]:
        return lambda folder: [
            [str(curl), "-sSf", "-C", "-", "-o", str(folder / "file"), url],
            *[[*command, str(folder / "file")] for command in more],
        ]

    no_curl = None if curl else "curl is not installed"
    no_sum = no_curl or (None if digest else "sha256sum is not installed")
    no_openssl = no_curl or (None if openssl else "openssl is not installed")
    dgst = [str(openssl), "dgst", "-sha256"]
    pip = [*script("pip"), "download", "-q", "--no-deps", "--no-cache-dir"]
    target = [str(uv), "pip", "install", "-q", "--no-deps", "--python", sys.executable]
    return [
        Side("mbpm", ours),
        Side("curl, sha256sum", curled([str(digest)]), missing=no_sum),
        Side("curl, openssl sha256", curled(dgst), missing=no_openssl),
        Side("curl, openssl sha256, sync", curled(dgst, ["sync"]), missing=no_openssl),
        Side("curl -C -", curled(), missing=no_curl),
        Side(
            "pip download",
            lambda f: [[*pip, "--index-url", index, "-d", str(f), "bench-weights"]],
            {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        ),
        Side(
            "uv pip install",
            lambda f: [[*target, "--index-url", index, "--target", str(f / "to"), "bench-weights"]],
            {"UV_CACHE_DIR": str(work / "uv-cache"), "UV_NO_CONFIG": "1"},
            None if uv else "uv is not installed: `pip install uv`",
        ),
        Side(
            "hf download",
            lambda f: [
                [str(hf), "download", "someone/bench", made_up.FILE, "--local-dir", str(f)],
            ],
            {
                "HF_ENDPOINT": server.url,
                "HF_HOME": str(work / "hf-home"),
                "HF_HUB_DISABLE_TELEMETRY": "1",
            },
            None if hf else "hf is not installed: `pip install huggingface_hub`",
        ),
    ]


def _environment(side: Side) -> dict[str, str]:
    """This process's, without what would lead pip and uv elsewhere."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "HF_"))}
    return {**kept, **side.environment}


def _timed(side: Side, work: Path) -> float:
    folder = _fresh(work)
    begin = time.perf_counter()
    for step in side.steps(folder):
        _run(step, _environment(side))
    return time.perf_counter() - begin


def _fresh(work: Path) -> Path:
    """An empty folder; what the last side left is gone, and the disk at rest."""
    for name in ("side", "uv-cache", "hf-home"):
        shutil.rmtree(work / name, ignore_errors=True)
    if hasattr(os, "sync"):
        os.sync()
    (work / "side").mkdir()
    return work / "side"


def _run(command: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        list(command), capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise MbpmError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-500:]}")


def _killed_half_way(side: Side, server: BlobServer, work: Path, size: int) -> float:
    """Megabytes that were sent more than once when a command is killed and typed again."""
    folder = _fresh(work)
    before = server.sent()
    (step,) = side.steps(folder)
    process = subprocess.Popen(
        list(step),
        env=_environment(side),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # a command may have children of its own
        start_new_session=True,
    )
    while server.sent() - before < size / 2 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    _run(step, _environment(side))
    return max(0.0, (server.sent() - before - size) / 1e6)


def _speed(sides: list[Side], size: int, rounds: int) -> list[Case]:
    ours = sides[0]
    cases = []
    for side in sides[1:]:
        if side.name == "curl -C -":
            continue
        mine = [size / 1e6 / s for s in ours.seconds]
        theirs = [size / 1e6 / s for s in side.seconds]
        cases.append(
            Case.of_rounds(
                f"{size / 1e9:.1f} GB from loopback, whole process",
                mine,
                theirs or None,
                side.name,
                "MB/s",
                higher_is_better=True,
            )
        )
    return cases


def _resume(sides: list[Side]) -> list[Case]:
    ours = sides[0]
    return [
        Case.of_rounds(
            "killed half-way: sent twice",
            ours.again,
            side.again or None,
            side.name,
            "MB",
            higher_is_better=False,
        )
        for side in sides[1:]
        if side.name in _RESUMED
    ]


def _nothing(registry: str, work: Path) -> list[Case]:
    """Installing what is installed, whole process."""
    home = str(work / "nothing")
    command = [*script("mbpm"), "--home", home, "install", made_up.PACK]
    command += ["--registry", registry, "--yes"]
    _run(command, dict(os.environ))
    uv, pip = program("uv"), script("pip")
    peers = {
        "pip install": [*pip, "install", "-q", INSTALLED],
        "uv pip install": [str(uv), "pip", "install", "-q", "--python", sys.executable, INSTALLED],
    }
    if uv is None:
        del peers["uv pip install"]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    mine: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in ("pip install", "uv pip install")}
    for number in range(NOTHING_ROUNDS + 1):
        for name, what in {"mbpm": command, **peers}.items():
            begin = time.perf_counter()
            _run(what, environment)
            taken = (time.perf_counter() - begin) * 1000
            if number:
                (mine if name == "mbpm" else theirs[name]).append(taken)
    return [
        Case.of_rounds(
            "install what is installed", mine, times or None, name, "ms", higher_is_better=False
        )
        for name, times in theirs.items()
    ]
