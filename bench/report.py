"""What a benchmark reports: cases of ours beside a peer's, as a table or one JSON object."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Case:
    """One comparison; `peer` is None where the peer is not installed, never a guess.

    `ratio` is above 1 where ours is better, whatever the unit.
    """

    case: str
    ours: float
    peer: float | None
    peer_name: str | None
    ratio: float | None
    unit: str
    rounds: int

    @classmethod
    def of_rounds(
        cls,
        case: str,
        ours: Sequence[float],
        peer: Sequence[float] | None,
        peer_name: str | None,
        unit: str,
        *,
        higher_is_better: bool,
    ) -> Case:
        """The medians of the rounds of both sides and their ratio."""
        mine = median(ours)
        theirs = median(peer) if peer else None
        ratio = None
        if theirs is not None:
            ratio = mine / theirs if higher_is_better else theirs / mine
        return cls(case, mine, theirs, peer_name, ratio, unit, len(ours))


@dataclass(frozen=True)
class Report:
    """A benchmark's result on one machine."""

    bench: str
    machine: dict[str, object]
    cases: list[Case]
    notes: list[str] = field(default_factory=list)
    """Said beside the table: which peer is missing, and how it is installed."""

    def document(self) -> dict[str, object]:
        """The JSON object of `--json`."""
        return {
            "bench": self.bench,
            "machine": self.machine,
            "cases": [asdict(case) for case in self.cases],
        }

    def table(self) -> str:
        """The result for people."""
        rows = [("case", "ours", "peer", "ratio", "peer's name", "rounds")]
        for case in self.cases:
            rows.append(
                (
                    case.case,
                    _number(case.ours, case.unit),
                    _peer(case),
                    "" if case.ratio is None else f"{case.ratio:.2f}",
                    case.peer_name or "",
                    str(case.rounds),
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)) for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        machine = ", ".join(f"{key} {value}" for key, value in self.machine.items())
        return "\n".join([f"{self.bench} on {machine}", "", *(line.rstrip() for line in lines)])


def _number(value: float, unit: str) -> str:
    digits = 1 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f} {unit}".rstrip()


def _peer(case: Case) -> str:
    if case.peer is not None:
        return _number(case.peer, case.unit)
    return "not installed" if case.peer_name else ""


def tell(text: str) -> None:
    """Say on standard error how far a measurement is."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, object]:
    """The processor, cores, system, Python and load average of this machine."""
    found: dict[str, object] = {
        "cpu": _cpu_name(),
        "cores": cores(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 2)
    return found


def cores() -> int:
    """Cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
