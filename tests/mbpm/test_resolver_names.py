"""Packs that stand in for names, replace or recommend others."""

from __future__ import annotations

from mbpm.resolver import Installed, resolve
from specs.errors import NotFoundError, ResolutionError
from specs.versions import Version
from tests.support.universe import (
    choose,
    pack,
    problem,
    refused,
    several,
    upgraded,
    versions,
)

# other names


def test_provided_by_another_pack() -> None:
    offers = [
        pack("law", "1.0.0", provides=("legal",)),
        pack("court", "1.0.0", requires={"legal": "*"}),
        pack("strict", "1.0.0", requires={"legal": "1"}),
    ]
    assert choose(offers, "law", "court") == {"law": "1.0.0", "court": "1.0.0"}
    assert choose(offers, "court") == {"law": "1.0.0", "court": "1.0.0"}
    # what is provided has no version, as in apt
    assert "`law` provides it without a version" in refused(ResolutionError, offers, "strict")
    offers.append(pack("legal", "1.3.0"))
    assert choose(offers, "strict") == {"legal": "1.3.0", "strict": "1.0.0"}


def test_which_provider_is_taken() -> None:
    court = pack("court", "1.0.0", requires={"legal": "*"})
    laws = [pack(n, "1.0.0", provides=("legal",)) for n in ("law-b", "law-a")]
    assert set(choose([court, *laws], "court")) == {"court", "law-a"}
    assert set(choose([court, *laws], "court", installed=laws[:1])) == {"court", "law-b"}
    assert set(choose([court, *laws], "court", "law-b")) == {"court", "law-b"}
    real = pack("legal", "0.1.0")
    assert set(choose([court, *laws, real], "court")) == {"court", "legal"}
    assert set(choose([court, *laws, real], "court", "law-b")) == {"court", "law-b"}


def test_local_pack_can_be_the_provider() -> None:
    court = pack("court", "1.0.0", requires={"legal": "*"})
    assert set(choose([court], "court", pack("mine", "0.1.0", provides=("legal",)))) == {
        "court",
        "mine",
    }


def test_conflicts() -> None:
    offers = [pack("a", "1.0.0", conflicts={"b": "<2"}), *several("b", "1.0.0", "2.0.0")]
    assert "a 1.0.0 conflicts with b 1.0.0" in refused(ResolutionError, offers, "a", "b@1")
    assert choose(offers, "a", "b@2") == {"a": "1.0.0", "b": "2.0.0"}
    assert choose(offers, "a", installed=offers[1:2]) == {"a": "1.0.0", "b": "2.0.0"}
    text = refused(ResolutionError, offers[:1], "a", installed=[pack("b", "1.5.0")])
    assert "conflicts with b 1.5.0" in text


def test_conflict_with_a_virtual_name_means_every_other_provider() -> None:
    general = pack("a", "1.0.0", conflicts={"legal": "*"}, provides=("legal",))
    versioned = pack("v", "1.0.0", conflicts={"legal": "<9"})
    law = pack("law", "1.0.0", provides=("legal",))
    offers = [general, versioned, law]
    assert "conflicts with `legal`" in refused(ResolutionError, offers, "a", "law")
    assert choose(offers, "a") == {"a": "1.0.0"}
    assert set(choose(offers, "v", "law")) == {"v", "law"}
    assert "conflicts" in refused(ResolutionError, offers, "a", installed=[law])


def test_replacement_that_is_asked_for() -> None:
    old, user = pack("old", "1.0.0"), pack("user", "1.0.0", requires={"old": "*"})
    offers = [*several("old", "1.0.0", "3.0.0"), pack("new", "2.0.0", replaces={"old": "<2"})]
    solution = resolve(problem(offers, "new", installed=[old, user]))
    assert versions(solution) == {"new": "2.0.0", "user": "1.0.0"}
    assert solution.removed == {"old": "replaced by new 2.0.0"}
    assert solution.needed_by["new"] == ("user 1.0.0",)
    # a version that is not replaced can stay beside it
    newer = resolve(problem(offers, "new", installed=[offers[1], user]))
    assert versions(newer) == {"new": "2.0.0", "old": "3.0.0", "user": "1.0.0"}


def test_replacement_of_what_is_held_or_asked_for() -> None:
    old = pack("old", "1.0.0")
    offers = [old, pack("new", "2.0.0", replaces={"old": "*"})]
    for options in ({"installed": [Installed(old, held=True)]}, {}):
        wanted = ["new"] if options else ["new", "old"]
        text = refused(ResolutionError, offers, *wanted, **options)
        assert "new 2.0.0 replaces old 1.0.0" in text


def test_replacement_on_full_upgrade_only() -> None:
    old = pack("old", "1.0.0")
    offers = [old, pack("new", "2.0.0", replaces={"old": "*"})]
    plain = resolve(upgraded(offers, old))
    assert versions(plain) == {"old": "1.0.0"}
    reason = "its replacement `new` removes it; `mbpm full-upgrade`"
    assert plain.kept_back == {"old": (Version("2.0.0"), reason)}
    full = resolve(upgraded(offers, old, removable=True))
    assert versions(full) == {"new": "2.0.0"}
    assert full.removed == {"old": "replaced by new 2.0.0"}
    user = pack("user", "1.0.0", requires={"old": "1"})
    kept = resolve(upgraded([*offers, user], old, user, removable=True))
    assert versions(kept) == {"old": "1.0.0", "user": "1.0.0"}
    assert kept.kept_back == {"old": (Version("2.0.0"), "user 1.0.0 requires `old 1`")}


def test_name_that_is_only_provided_cannot_be_asked_for() -> None:
    offers = several("law", "1.0.0", provides=("legal",))
    assert "provided by `law`" in refused(NotFoundError, offers, "legal")


# recommendations


def test_recommended_packs_come_along() -> None:
    offers = [
        pack("a", "1.0.0", recommends={"b": "1", "legal": "*"}),
        pack("b", "1.2.0", requires={"c": "*"}, recommends={"d": "*"}),
        *several("c", "1.0.0"),
        *several("d", "1.0.0"),
        pack("law", "1.0.0", provides=("legal",)),
    ]
    assert set(choose(offers, "a")) == {"a", "b", "c", "d", "law"}
    assert set(choose(offers, "a", recommends=False)) == {"a"}


def test_what_is_recommended_but_cannot_be_had_is_left_out() -> None:
    offers = [
        pack("a", "1.0.0", requires={"c": "2"}, recommends={"b": "*", "nowhere": "1", "e": "*"}),
        pack("b", "1.0.0", requires={"c": "1"}),
        *several("c", "1.0.0", "2.0.0"),
        *several("e", "1.0.0"),
    ]
    solution = resolve(problem(offers, "a"))
    assert versions(solution) == {"a": "1.0.0", "c": "2.0.0", "e": "1.0.0"}
    assert solution.left_out == {
        "b": "b 1.0.0 requires `c 1`; c 2.0.0 is chosen",
        "nowhere": "a 1.0.0 recommends `nowhere 1`, and no registry has `nowhere`",
    }


def test_recommendations_change_nothing_that_is_installed() -> None:
    offers = [pack("a", "1.0.0", recommends={"b": "2"}), *several("b", "1.0.0", "2.0.0")]
    solution = resolve(problem(offers, "a", installed=offers[1:2]))
    assert versions(solution) == {"a": "1.0.0", "b": "1.0.0"}
    assert not solution.left_out or "b 1.0.0" in solution.left_out["b"]


def test_only_new_recommendations_of_an_upgrade_count() -> None:
    offers = [
        pack("a", "1.0.0", recommends={"b": "*"}),
        pack("a", "1.1.0", recommends={"b": "*", "c": "*"}),
        *several("b", "1.0.0"),
        *several("c", "1.0.0"),
    ]
    assert versions(resolve(upgraded(offers, offers[0]))) == {"a": "1.1.0", "c": "1.0.0"}
    assert choose(offers, "a", installed=offers[:1]) == {"a": "1.0.0"}
