"""The resolver against every possible choice, on random small universes."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from mbpm.catalogue import Candidate
from mbpm.resolver import Installed, Problem, resolve
from specs.errors import MbpmError
from specs.versions import Requirement
from tests.support.rules import broken, every_choice, needed
from tests.support.universe import ELSEWHERE, HERE, OLDER, pack, problem, versions

NAMES = ["a", "b", "c", "d"]
VIRTUAL = ["v", "w"]
VERSIONS = ["1.0.0", "1.1.0", "2.0.0", "2.1.0-rc.1"]
REQUIREMENTS = ["*", "*", "1", "2", "^1.1", "<2", ">=1.1", "=1.0.0", ">=2.1.0-rc.1"]


def universe(rng: random.Random) -> list[Candidate]:
    """Two to four names in a few versions, with relations among them and two virtual names."""
    names = NAMES[: rng.choice([2, 3, 4, 4])]
    offers = []

    def some(chance: float, among: list[str]) -> dict[str, str]:
        return {n: rng.choice(REQUIREMENTS) for n in among if rng.random() < chance}

    for name in names:
        others = [n for n in NAMES if n != name]
        for version in rng.sample(VERSIONS, rng.randint(1, 3)):
            offers.append(
                pack(
                    name,
                    version,
                    rng.choice([HERE] * 8 + [OLDER, ELSEWHERE]),
                    requires=some(0.3, others) | some(0.15, VIRTUAL),
                    recommends=some(0.1, others),
                    conflicts=some(0.1, others) | some(0.05, VIRTUAL),
                    provides=tuple(n for n in VIRTUAL if rng.random() < 0.2),
                    replaces=some(0.06, others),
                    yanked=rng.random() < 0.1,
                )
            )
    return offers


def home(rng: random.Random, offers: list[Candidate]) -> list[Installed]:
    """Some packs that go together, a few of them held or pinned."""
    free = problem(offers)
    good = [c for c in every_choice(free, offers) if c and not broken(free, c)]
    if not good or rng.random() < 0.3:
        return []
    return [
        Installed(
            candidate,
            auto=rng.random() < 0.4,
            held=rng.random() < 0.15,
            pin=Requirement(rng.choice(REQUIREMENTS)) if rng.random() < 0.15 else None,
        )
        for candidate in rng.choice(good).values()
    ]


def answer(asked: Problem) -> dict[str, Candidate] | None:
    try:
        return dict(resolve(asked).packs)
    except MbpmError:
        return None


@st.composite
def situations(draw: st.DrawFn) -> tuple[random.Random, list[Candidate], list[Installed]]:
    rng = random.Random(draw(st.integers(0, 2**32)))
    offers = universe(rng)
    return rng, offers, home(rng, offers)


def wishes(rng: random.Random, offers: list[Candidate]) -> list[str]:
    names = sorted({c.line.name for c in offers})
    return [
        n if rng.random() < 0.5 else f"{n}@{rng.choice(REQUIREMENTS)}"
        for n in rng.sample(names, rng.randint(1, min(3, len(names))))
    ]


def check(asked: Problem, offers: list[Candidate]) -> None:
    found = answer(asked)
    if found is None:
        for choice in every_choice(asked, offers):
            assert not needed(asked, choice) or broken(asked, choice), versions(choice)
    else:
        assert not broken(asked, found)


@settings(max_examples=100, deadline=None)
@given(situations())
def test_a_solution_is_found_exactly_where_there_is_one(
    situation: tuple[random.Random, list[Candidate], list[Installed]],
) -> None:
    rng, offers, installed = situation
    asked = problem(
        offers,
        *wishes(rng, offers),
        installed=installed,
        recommends=rng.random() < 0.5,
        prereleases=rng.random() < 0.2,
    )
    check(asked, offers)


@settings(max_examples=100, deadline=None)
@given(situations())
def test_removing_and_syncing(
    situation: tuple[random.Random, list[Candidate], list[Installed]],
) -> None:
    rng, offers, installed = situation
    names = [i.candidate.line.name for i in installed if not i.held]
    wanted = wishes(rng, offers)
    gone = {n for n in names if rng.random() < 0.3} - {w.partition("@")[0] for w in wanted}
    locked = {c.line.name: c.line.manifest for c in rng.sample(offers, min(2, len(offers)))}
    asked = problem(
        offers,
        *wanted,
        installed=installed,
        remove=frozenset(gone),
        exact=rng.random() < 0.5,
        locked=locked if rng.random() < 0.5 else {},
        recommends=False,
    )
    check(asked, offers)


@settings(max_examples=100, deadline=None)
@given(situations())
def test_upgrading_removes_nothing_and_lowers_nothing(
    situation: tuple[random.Random, list[Candidate], list[Installed]],
) -> None:
    rng, offers, installed = situation
    names = frozenset(i.candidate.line.name for i in installed)
    asked = problem(offers, installed=installed, upgrade=names, recommends=rng.random() < 0.5)
    solution = resolve(asked)
    assert not broken(asked, solution.packs)
    assert names <= solution.packs.keys()
    assert not solution.removed
    for record in installed:
        name = record.candidate.line.name
        chosen = solution.packs[name].version
        assert chosen >= record.candidate.version
        newer = [c for c in offers if c.line.name == name and c.version > chosen]
        possible = [c for c in newer if not broken(asked, {**solution.packs, name: c})]
        assert not possible, "it could be newer with everything else as it is"


@settings(max_examples=100, deadline=None)
@given(situations())
def test_full_upgrade_removes_only_what_is_replaced_or_conflicts(
    situation: tuple[random.Random, list[Candidate], list[Installed]],
) -> None:
    _, offers, installed = situation
    names = frozenset(i.candidate.line.name for i in installed)
    asked = problem(offers, installed=installed, upgrade=names, removable=True, recommends=False)
    solution = resolve(asked)
    assert not broken(asked, solution.packs)
    assert solution.removed.keys() == names - solution.packs.keys()
    assert all(solution.removed.values())


@settings(max_examples=100, deadline=None)
@given(situations())
def test_nothing_changes_where_all_is_there(
    situation: tuple[random.Random, list[Candidate], list[Installed]],
) -> None:
    rng, offers, installed = situation
    wanted = [i.candidate.line.name for i in installed if rng.random() < 0.5]
    before = {i.candidate.line.name: i.candidate for i in installed}
    solution = resolve(problem(offers, *wanted, installed=installed))
    assert solution.packs == before
    assert not solution.removed
    assert not solution.left_out


@settings(max_examples=100, deadline=None)
@given(situations())
def test_everything_new_is_needed(
    situation: tuple[random.Random, list[Candidate], list[Installed]],
) -> None:
    rng, offers, installed = situation
    asked = problem(offers, *wishes(rng, offers), installed=installed)
    found = answer(asked)
    if found is None:
        return
    solution = resolve(asked)
    wanted = {r.name for r in asked.requests}
    for name, candidate in found.items():
        assert name in wanted or name in asked.installed or solution.needed_by[name], candidate
    for name, reason in solution.left_out.items():
        assert name not in found
        assert reason
