"""Random small universes of packs, homes and wishes."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager
from unittest.mock import patch

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


def universe(rng: random.Random, *, crowded: bool = False) -> list[Candidate]:
    """Two to four names in a few versions, with relations among them and two virtual names; where
    it is crowded, nearly everything has to do with everything else."""
    names = NAMES if crowded else NAMES[: rng.choice([2, 3, 4, 4])]
    much = 2.5 if crowded else 1.0
    offers = []

    def some(chance: float, among: list[str]) -> dict[str, str]:
        # a version of what has none is rarely what somebody means
        texts = ["*"] * 8 + REQUIREMENTS if among is VIRTUAL else REQUIREMENTS
        return {n: rng.choice(texts) for n in among if rng.random() < much * chance}

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
                    conflicts=some(0.1, others) | some(0.1, VIRTUAL),
                    provides=tuple(n for n in VIRTUAL if rng.random() < much * 0.2),
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
    """What is installed afterwards; None where nothing can be."""
    try:
        return dict(resolve(asked).packs)
    except MbpmError:
        return None


def learning_alone() -> AbstractContextManager[object]:
    """Without trying first whether the best choices go together."""
    return patch("mbpm.resolver.search.search", return_value=None)


def learned(asked: Problem) -> dict[str, Candidate] | None:
    """As `answer`, from `learning_alone`."""
    with learning_alone():
        return answer(asked)


@st.composite
def situations(draw: st.DrawFn) -> tuple[random.Random, list[Candidate], list[Installed]]:
    """What is on offer and what is installed, and a source of more chance."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    offers = universe(rng)
    return rng, offers, home(rng, offers)


def wishes(rng: random.Random, offers: list[Candidate]) -> list[str]:
    """What a command line asks for."""
    names = sorted({c.line.name for c in offers})
    return [
        n if rng.random() < 0.5 else f"{n}@{rng.choice(REQUIREMENTS)}"
        for n in rng.sample(names, rng.randint(1, min(3, len(names))))
    ]


def check(asked: Problem, offers: list[Candidate]) -> None:
    """Compare the answers with every possible choice."""
    found = [answer(asked), learned(asked)]
    for packs in found:
        assert packs is None or not broken(asked, packs), (versions(packs), broken(asked, packs))
    if None in found:
        for choice in every_choice(asked, offers):
            assert not needed(asked, choice) or broken(asked, choice), versions(choice)
