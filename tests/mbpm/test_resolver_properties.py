"""The resolver against every possible choice, on random small universes."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from mbpm.catalogue import Candidate
from mbpm.resolver import Installed, resolve
from tests.support.rules import broken
from tests.support.situations import answer, check, learned, situations, universe, wishes
from tests.support.universe import problem, versions


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
@given(st.integers(0, 2**32))
def test_where_nearly_everything_clashes(seed: int) -> None:
    rng = random.Random(seed)
    offers = universe(rng, crowded=True)
    asked = problem(offers, *wishes(rng, offers), recommends=False)
    check(asked, offers)
    for packs in (answer(asked), learned(asked)):
        for name in packs or ():
            for offer in offers:
                if offer.line.name == name and offer.version > packs[name].version:
                    assert broken(asked, {**packs, name: offer}), "it could be newer"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_the_order_of_what_is_on_offer_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    offers = universe(rng, crowded=True)
    wanted = wishes(rng, offers)
    asked = problem(offers, *wanted)
    again = problem(rng.sample(offers, len(offers)), *wanted)
    for way in (answer, learned):
        assert versions(way(asked) or {}) == versions(way(again) or {})


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
