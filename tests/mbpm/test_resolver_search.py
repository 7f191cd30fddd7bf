"""What choosing versions takes: what is looked up, and what is found where much clashes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from mbpm.catalogue import Candidate
from mbpm.resolver import resolve
from specs.errors import ResolutionError
from tests.support.universe import (
    pack,
    problem,
    refused,
)


def test_nothing_is_looked_up_for_what_is_there() -> None:
    def lookup(name: str) -> list[Candidate]:
        raise AssertionError(f"{name} was looked up")

    installed = [pack(f"p{i}", "1.0.0", requires={f"p{i + 1}": "*"}) for i in range(50)]
    installed.append(pack("p50", "1.0.0"))
    asked = problem([], "p3@1", "p7", installed=installed)
    assert len(resolve(replace(asked, lookup=lookup, providers=lookup)).packs) == 51  # type: ignore[arg-type]


def test_only_what_a_request_touches_is_looked_up() -> None:
    installed = [pack(f"p{i}", "1.0.0") for i in range(50)]
    offers = [pack("a", "1.0.0", requires={"p3": "1"}), *installed]
    asked, looked = problem(offers, "a", installed=installed), []

    def lookup(name: str) -> list[Candidate]:
        looked.append(name)
        return list(asked.lookup(name))

    assert len(resolve(replace(asked, lookup=lookup)).packs) == 51
    assert looked == ["a"]


def test_resolvelib_is_not_imported_where_nothing_has_to_be_decided() -> None:
    script = (
        "import sys\n"
        "from tests.support.universe import choose, pack\n"
        "choose([], 'a', installed=[pack('a', '1.0.0')])\n"
        "assert not {'resolvelib', 'torch', 'numpy', 'httpx'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_absurd_problems_end_with_a_clear_error() -> None:
    names = [f"n{i}" for i in range(12)]
    # twelve packs on eleven chairs: every version takes one, and no two may take the same
    offers = [
        pack(n, f"{i}.0.0", conflicts={m: f"={i}.0.0" for m in names if m != n})
        for n in names
        for i in range(1, 12)
    ]
    assert "gave up" in refused(ResolutionError, offers, *names)
