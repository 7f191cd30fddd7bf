"""`index`: a registry of 100,000 packs with 10 versions each, over HTTP from this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench import simple_index
from bench.index_worker import asked
from bench.many_packs import PACKS, change, make, name_of
from bench.peers import program, script
from bench.processes import peak_resident
from bench.report import Case, Report, machine
from bench.web import Web, serving
from specs.errors import MbpmError

FOLDER = Path(".cache") / "bench-index"
TERMS = ("law", "tax bace", "haba diba", "answers", "a", "medicine-cuba")
"""From a few matches to all packs, and none."""
SEEDS = tuple(range(1, 11))
UV_MISSING = "uv is not installed: `pip install uv`"


def index(rounds: int, packs: int = PACKS) -> Report:
    """Refresh, search and resolve.

    Raises:
        MbpmError: one of the commands failed.
    """
    registry, home = FOLDER / "registry", FOLDER / "home"
    print(f"making {packs:,} packs in {registry}, unless they are there", file=sys.stderr)
    make(registry, packs)
    shutil.rmtree(home, ignore_errors=True)
    with serving(registry) as web:
        bench = _Bench(web, home, packs)
        cases = [*bench.refresh(registry), *bench.search(rounds), *bench.resolve(rounds)]
        cases += bench.memory()
        return Report("index", machine(), cases, bench.notes)


PIP_SECONDS = 60.0
"""How long pip may look for versions: it goes back a step at a time."""


class _Bench:
    def __init__(self, web: Web, home: Path, packs: int) -> None:
        self._web, self._home, self._packs = web, home, packs
        self.notes: list[str] = []

    def _command(self, job: str, *numbers: object) -> list[str]:
        command = [sys.executable, "-m", "bench.index_worker", str(self._home), self._web.url, job]
        return [*command, *map(str, numbers)]

    def _ask(self, job: str, *numbers: object) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(_run(self._command(job, *numbers)))
        return answer

    def refresh(self, registry: Path) -> list[Case]:
        """Bytes of a refresh beside those of the whole summary."""
        first = self._ask("refresh")
        total = first["total_bytes"] / 1e6
        self.notes.append(f"the first refresh fetched {total:.1f} MB in {first['seconds']:.1f} s")
        whole = "the whole summary"
        cases = []
        version = f"9.0.{int(time.time())}"
        for title, numbers in (
            ("nothing changed", []),
            ("1 pack changed", [self._packs // 2]),
            ("100 packs changed", list(range(7, self._packs, self._packs // 100))),
        ):
            if numbers:
                change(registry, numbers, version)
            before = self._web.count()
            done = self._ask("refresh")
            requests, sent = (b - a for a, b in zip(before, self._web.count(), strict=True))
            sent_mb = sent / 1e6
            self.notes.append(f"refresh, {title}: {requests} requests, {done['seconds']:.2f} s")
            ratio = total / sent_mb if sent else None
            cases.append(Case(f"refresh, {title}", sent_mb, total, whole, ratio, "MB", 1))
        return cases

    def search(self, rounds: int) -> list[Case]:
        """In-process, and the whole command."""
        found = self._ask("search", *TERMS)
        slowest = max(answer["seconds"] for answer in found.values())
        self.notes.append(f"the slowest search took {slowest * 1000:.0f} ms by the clock")
        cases = [
            Case(
                f"search `{text}`: {found[text]['total']:,} found, processor time",
                found[text]["processor"] * 1000,
                None,
                None,
                None,
                "ms",
                7,
            )
            for text in TERMS
        ]
        command = [*script("mbpm"), "--home", str(self._home), "--offline", "search", "tax", "bace"]
        command += ["--registry", self._web.url]
        seconds = [_timed(command) for _ in range(rounds + 1)][1:]
        peer = program("apt-cache")
        theirs, name = None, None
        if peer is not None:
            packages = _run([peer, "pkgnames"]).count("\n")
            theirs = [_timed([peer, "search", "tax", "law"]) for _ in range(rounds + 1)][1:]
            name = f"apt-cache search, {packages:,} packages"
        case = f"mbpm search, whole process, {self._packs:,} packs"
        cases.append(Case.of_rounds(case, seconds, theirs, name, "ms", higher_is_better=False))
        return cases

    def resolve(self, rounds: int) -> list[Case]:
        """Choosing versions for 30 packs, beside pip and uv where they are there."""
        answer = self._ask("resolve", *SEEDS)["requests"]
        refused = self._ask("refuse", *SEEDS)["requests"]
        taken = sorted(a["processor"] * 1000 for a in answer)
        typical = sorted(answer, key=lambda a: a["processor"])[len(answer) // 2]
        for a in answer:
            self.notes.append(
                f"request {a['seed']}: {a['packs']} packs chosen, {a['older']} of them older than "
                f"the newest, {a['seconds'] * 1000:.0f} ms, {a['processor'] * 1000:.0f} ms of them "
                "processor time"
            )
        seed = typical["seed"]
        cold = [self._ask("resolve-cold", seed)["seconds"] * 1000 for _ in range(rounds)]
        ahead = [self._ask("resolve-ahead", seed)["seconds"] * 1000 for _ in range(rounds)]
        peers = self._peers(seed, rounds)
        kept = f"resolve 30 packs ({typical['packs']} chosen, {typical['older']} older)"
        cases = [
            Case(
                f"resolve 30 packs, index files here, processor time: median of {len(SEEDS)}",
                median(taken),
                None,
                None,
                None,
                "ms",
                7,
            ),
            Case(f"the hardest of these {len(SEEDS)}", taken[-1], None, None, None, "ms", 7),
            Case(
                f"the same, one more pack in the way, until that is told: median of {len(SEEDS)}",
                median(a["processor"] * 1000 for a in refused),
                None,
                None,
                None,
                "ms",
                7,
            ),
        ]
        for title, ours, there in (
            ("index files to be fetched", cold, "cold"),
            ("the same, fetched ahead", ahead, "cold"),
            ("index files here", [typical["seconds"] * 1000], "warm"),
        ):
            for name, theirs in peers[there].items():
                case = f"{kept}, {title}"
                cases.append(Case.of_rounds(case, ours, theirs, name, "ms", higher_is_better=False))
        return cases

    def _peers(self, seed: int, rounds: int) -> dict[str, dict[str, list[float] | None]]:
        """Milliseconds of pip and uv (whole processes) on the same requirements."""
        root = FOLDER / "simple"
        shutil.rmtree(root, ignore_errors=True)
        projects = simple_index.write(root, asked(seed))
        wanted = [name_of(n) for n in asked(seed)]
        (root / "wanted.txt").write_text("\n".join(wanted))
        self.notes.append(
            f"pip and uv choose from {projects} projects of the same requirements, without our "
            "conflicts and provided names; their times are of whole processes, and pip fetches the "
            "(empty) wheels too"
        )
        uv = program("uv")
        if uv is None:
            self.notes.append(UV_MISSING)
        with serving(root) as web:
            address = ["--index-url", f"{web.url}/simple/"]
            cache = root / "uv-cache"
            ask = [str(uv), "pip", "compile", "--quiet", "--no-config", "--cache-dir", str(cache)]
            ask += [*address, "--no-header", str(root / "wanted.txt")]
            cold, warm = [], []
            for _ in range(rounds if uv else 0):
                shutil.rmtree(cache, ignore_errors=True)
                cold.append(_timed(ask))
                warm.append(_timed(ask))
            pip = [*script("pip"), "--disable-pip-version-check", "install", "--quiet", "--dry-run"]
            pip += [
                "--ignore-installed",
                "--no-cache-dir",
                *address,
                "-r",
                str(root / "wanted.txt"),
            ]
            slow = self._try(lambda: _timed(pip, PIP_SECONDS))
        return {
            "cold": {"uv pip compile": cold or None, "pip install --dry-run": slow},
            "warm": {"uv pip compile": warm or None},
        }

    def _try(self, measure: Callable[[], float]) -> list[float] | None:
        try:
            return [measure()]
        except MbpmError as error:
            self.notes.append(f"pip: {error.message[-300:]}")
            return None

    def memory(self) -> list[Case]:
        """The most memory resident, of each job in a process of its own."""
        shutil.rmtree(self._home, ignore_errors=True)
        jobs = {
            "the first refresh": self._command("refresh"),
            "searching": self._command("search", *TERMS),
            "resolving ten requests": self._command("resolve", *SEEDS),
        }
        return [
            Case(f"peak resident: {title}", peak_resident(job) / 1e6, None, None, None, "MB", 1)
            for title, job in jobs.items()
        ]


def _run(command: list[str], limit: float | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise MbpmError(f"no answer in {limit:.0f} s") from None
    if done.returncode:
        raise MbpmError(f"`{' '.join(command[:6])} …` failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _timed(command: list[str], limit: float | None = None) -> float:
    start = time.perf_counter()
    _run(command, limit)
    return (time.perf_counter() - start) * 1000
