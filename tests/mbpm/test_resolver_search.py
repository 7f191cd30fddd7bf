"""What choosing versions takes: what is looked up, and what is found where much clashes."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from mbpm.catalogue import Candidate
from mbpm.resolver import resolve
from mbpm.resolver.sentences import MOST_REASONS
from specs.errors import ResolutionError
from tests.support.situations import learning_alone
from tests.support.universe import choose, pack, problem, refused, several

BOTH = pytest.mark.parametrize("ways", [nullcontext, learning_alone])


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


def chairs(people: int, seats: int) -> tuple[list[Candidate], list[str]]:
    """Every version of a pack takes one of the chairs, and no two may take the same."""
    names = [f"n{i}" for i in range(people)]
    offers = [
        pack(n, f"{i}.0.0", conflicts={m: f"={i}.0.0" for m in names if m != n})
        for n in names
        for i in range(1, seats + 1)
    ]
    return offers, names


def test_absurd_problems_end_with_a_clear_error() -> None:
    offers, names = chairs(12, 11)
    assert "gave up" in refused(ResolutionError, offers, *names)


def test_what_clashes_only_all_together() -> None:
    offers, names = chairs(5, 4)
    assert len(choose(offers, *names[:4])) == 4
    assert "cannot be installed together" in refused(ResolutionError, offers, *names)


def test_a_long_proof_is_cut() -> None:
    offers, names = chairs(6, 5)
    told = refused(ResolutionError, offers, *names).splitlines()
    assert len(told) == 1 + MOST_REASONS + 2
    assert re.fullmatch(r"  and \d+ more reasons", told[-2])
    assert told[-1] == "  so these cannot be together"


@BOTH
def test_one_of_many_providers(ways: Any) -> None:
    others = [f"p{i:02}" for i in range(80)]
    offers = [
        *several("c", "1.0.0", "2.0.0"),
        *(pack(n, "1.0.0", provides=("v",), requires={"c": "1"}) for n in others[:-1]),
        pack(others[-1], "1.0.0", provides=("v",), requires={"c": "2"}),
        pack("a", "1.0.0", requires={"b": "*", "v": "*"}),
        pack("b", "1.0.0", requires={"c": "2"}),
    ]
    with ways():
        assert choose(offers, "a") == dict.fromkeys(("a", "b", "p79"), "1.0.0") | {"c": "2.0.0"}


@BOTH
def test_a_pack_that_is_needed_anyway_is_the_provider(ways: Any) -> None:
    offers = [
        pack("a", "1.0.0", requires={"v": "*", "z": "1"}),
        *(pack(n, "1.0.0", provides=("v",)) for n in "bcz"),
    ]
    with ways():
        assert set(choose(offers, "a")) == {"a", "z"}


@BOTH
def test_requirements_that_give_way_together(ways: Any) -> None:
    # each pack goes with the same version of the next one, and the last one has only the first
    names = [f"n{i:02}" for i in range(40)]
    offers = [
        pack(n, f"{v}.0.0", requires={m: f"={v}.0.0"})
        for n, m in zip(names, [*names[1:], "end"], strict=True)
        for v in range(1, 11)
    ]
    with ways():
        assert set(choose([*offers, pack("end", "1.0.0")], *names).values()) == {"1.0.0"}


def test_a_contradiction_of_many_is_told_in_few_words() -> None:
    others = [f"p{i}" for i in range(30)]
    offers = [
        pack("a", "1.0.0", requires={"c": "1", **dict.fromkeys(others, "*")}),
        pack("b", "1.0.0", requires={"c": "2", **dict.fromkeys(others, "*")}),
        *several("c", "1.0.0", "2.0.0"),
        *(pack(n, "1.0.0", requires={"c": "*"}) for n in others),
    ]
    told = refused(ResolutionError, offers, "a", "b", *others)
    assert told.splitlines()[1:-1] == ["  a 1.0.0 requires `c 1`", "  b 1.0.0 requires `c 2`"]


@BOTH
@pytest.mark.parametrize("wanted", [("a", "b"), ("b", "a")])
def test_a_conflict_with_a_name_that_another_pack_provides(
    ways: Any, wanted: tuple[str, str]
) -> None:
    offers = [
        pack("a", "1.0.0"),
        pack("a", "2.0.0", conflicts={"v": "*"}, provides=("v",)),
        pack("b", "1.0.0"),
        pack("b", "2.0.0", provides=("v",)),
    ]
    with ways():
        assert choose(offers, "a") == {"a": "2.0.0"}
        older = {wanted[0]: "2.0.0", wanted[1]: "1.0.0"}
        assert choose(offers, *wanted) == older
        assert "together" in refused(ResolutionError, offers, "a@2", "b@2")
