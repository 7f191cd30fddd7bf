"""Choosing versions: pure, over candidates made up here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mbpm.resolver import Installed, resolve
from specs.errors import IntegrityError, NotFoundError, ResolutionError
from specs.versions import Requirement, Version
from tests.support.universe import (
    ELSEWHERE,
    OLDER,
    OTHER,
    choose,
    pack,
    problem,
    refused,
    several,
    upgraded,
    versions,
)

# versions


def test_newest_admitted() -> None:
    offers = several("a", "1.10.0", "1.9.0", "2.0.0")
    assert choose(offers, "a") == {"a": "2.0.0"}
    assert choose(offers, "a@1") == {"a": "1.10.0"}
    assert "you ask for `a 3`" in refused(ResolutionError, offers, "a@3")


def test_pre_release_only_when_named() -> None:
    offers = several("a", "1.0.0", "2.0.0-rc.1")
    assert choose(offers, "a") == {"a": "1.0.0"}
    assert choose(offers, "a@=2.0.0-rc.1") == {"a": "2.0.0-rc.1"}
    assert choose(offers, "a", prereleases=True) == {"a": "2.0.0-rc.1"}
    assert "is a pre-release" in refused(ResolutionError, offers[1:], "a")


def test_pre_release_that_a_pack_requires() -> None:
    offers = [*several("a", "1.0.0", "2.0.0-rc.1"), pack("b", "1.0.0", requires={"a": ">=2.0.0-a"})]
    assert choose(offers, "b") == {"a": "2.0.0-rc.1", "b": "1.0.0"}
    # what is wanted by name is not changed to one without a word
    assert "pre-release" in refused(ResolutionError, offers, "b", "a")
    assert choose(offers, "b", "a@>=2.0.0-0") == {"a": "2.0.0-rc.1", "b": "1.0.0"}


def test_installed_pre_release_stays_until_its_release() -> None:
    offers = several("a", "1.0.0", "2.0.0-rc.1", "2.0.0-rc.2")
    assert versions(resolve(upgraded(offers, offers[1]))) == {"a": "2.0.0-rc.1"}
    offers.append(pack("a", "2.0.0"))
    assert versions(resolve(upgraded(offers, offers[1]))) == {"a": "2.0.0"}


def test_an_installed_pre_release_is_as_good_as_a_release() -> None:
    early = pack("a", "2.0.0-rc.1")
    user = pack("b", "1.0.0", requires={"a": "*"})
    offers = [*several("a", "1.0.0"), early, user, pack("c", "1.0.0", requires={"a": ">=1"})]
    assert choose(offers, "c", installed=[early])["a"] == "2.0.0-rc.1"
    assert choose(offers, "a@>=1", installed=[early]) == {"a": "2.0.0-rc.1"}
    told = refused(ResolutionError, offers, installed=[early, user], remove=frozenset("a"))
    assert "b 1.0.0 requires `a`" in told


def test_yanked_only_when_locked_or_installed() -> None:
    offers = [pack("a", "1.0.0"), pack("a", "1.1.0", yanked=True)]
    assert choose(offers, "a") == {"a": "1.0.0"}
    assert choose(offers, "a", locked={"a": offers[1].line.manifest}) == {"a": "1.1.0"}
    assert choose(offers, "a", locked={"a": "f" * 64}) == {"a": "1.0.0"}
    assert choose(offers, "a", installed=offers[1:]) == {"a": "1.1.0"}
    assert "is yanked" in refused(ResolutionError, offers, "a@1.1")


def test_local_pack_is_the_one_candidate() -> None:
    mine = pack("a", "0.1.0-dev", requires={"b": "1"})
    offers = [*several("a", "1.0.0"), *several("b", "1.2.0")]
    solution = resolve(problem(offers, mine))
    assert versions(solution) == {"a": "0.1.0-dev", "b": "1.2.0"}
    assert solution.packs["a"] is mine
    assert versions(resolve(problem(offers, mine, installed=offers[:1])))["a"] == "0.1.0-dev"


# dependencies


def test_requirements_narrow_an_earlier_choice() -> None:
    offers = [
        *several("a", "1.0.0", "2.0.0"),
        pack("b", "1.0.0", requires={"c": "1"}),
        pack("c", "1.0.0", requires={"a": "1"}),
    ]
    assert choose(offers, "a", "b") == {"a": "1.0.0", "b": "1.0.0", "c": "1.0.0"}


def test_an_older_version_is_taken_where_the_newest_cannot_be() -> None:
    offers = [
        pack("a", "1.0.0", requires={"b": "1"}),
        pack("a", "2.0.0", requires={"b": "2"}),
        *several("b", "1.0.0", "2.0.0"),
        pack("c", "1.0.0", requires={"b": "1"}),
    ]
    assert choose(offers, "a", "c") == {"a": "1.0.0", "b": "1.0.0", "c": "1.0.0"}


def test_circle_of_requirements() -> None:
    offers = [pack("a", "1.0.0", requires={"b": "1"}), pack("b", "1.0.0", requires={"a": "1"})]
    assert choose(offers, "a") == {"a": "1.0.0", "b": "1.0.0"}


def test_choices_that_undo_each_other_end() -> None:
    offers = [
        pack("a", "1.0.0"),
        pack("a", "2.0.0", requires={"b": "1"}),
        pack("b", "1.0.0", requires={"a": "1"}),
    ]
    assert choose(offers, "a") == {"a": "1.0.0"}
    assert "b 1.0.0 requires `a 1`" in refused(ResolutionError, offers, "a@2")


def test_requirement_on_itself_says_nothing() -> None:
    assert choose([pack("a", "1.0.0", requires={"a": "2"}, conflicts={"a": "*"})], "a") == {
        "a": "1.0.0"
    }


def test_requirement_nobody_can_meet() -> None:
    offers = [pack("b", "1.0.0", requires={"a": "1"})]
    assert "b 1.0.0 requires `a 1`, and no registry has `a`" in refused(
        ResolutionError, offers, "b"
    )
    assert "no pack `a`" in refused(NotFoundError, offers, "a")


def test_who_needs_what() -> None:
    offers = [
        pack("a", "1.0.0", requires={"b": "1"}, recommends={"c": "*"}),
        *several("b", "1.2.0"),
        pack("d", "1.0.0", requires={"b": "*"}),
        pack("law", "1.0.0", provides=("c",)),
    ]
    solution = resolve(problem(offers, "a", "d"))
    assert solution.needed_by == {
        "a": (),
        "b": ("a 1.0.0", "d 1.0.0"),
        "d": (),
        "law": ("a 1.0.0",),
    }


# what is installed


def test_what_is_installed_is_preferred_and_keeps_its_word() -> None:
    offers = [*several("a", "1.0.0", "1.5.0"), pack("b", "1.0.0", requires={"a": "1"})]
    old = offers[:1]
    assert choose(offers, "b", installed=old) == {"b": "1.0.0", "a": "1.0.0"}
    assert choose(offers, "a", installed=old) == {"a": "1.0.0"}
    guard = [*old, pack("guard", "1.0.0", requires={"a": "<1.5"})]
    text = refused(ResolutionError, offers, "a@=1.5.0", installed=guard)
    assert "guard 1.0.0 requires `a <1.5`" in text
    assert "you ask for `a =1.5.0`" in text


def test_installed_dependency_changes_only_as_far_as_it_must() -> None:
    offers = [*several("a", "1.0.0", "1.5.0", "2.0.0"), pack("b", "1.0.0", requires={"a": ">=1.2"})]
    guard = pack("guard", "1.0.0", requires={"a": "1"})
    chosen = choose(offers, "b", installed=[offers[0], guard])
    assert chosen == {"a": "1.5.0", "b": "1.0.0", "guard": "1.0.0"}
    assert choose(offers, "a@<2", installed=[offers[2]]) == {"a": "1.5.0"}


def test_installed_pack_moves_along_where_it_can() -> None:
    offers = [
        *several("a", "1.0.0", "2.0.0"),
        pack("guard", "1.0.0", requires={"a": "1"}),
        pack("guard", "2.0.0", requires={"a": "2"}),
    ]
    chosen = choose(offers, "a@2", installed=[offers[0], offers[2]])
    assert chosen == {"a": "2.0.0", "guard": "2.0.0"}


def test_held_packs_stay_and_others_go_round_them() -> None:
    offers = [
        *several("a", "1.0.0", "2.0.0"),
        pack("b", "1.0.0", requires={"a": "1"}),
        pack("b", "2.0.0", requires={"a": "2"}),
    ]
    held = Installed(offers[0], held=True)
    assert choose(offers, "b", installed=[held]) == {"a": "1.0.0", "b": "1.0.0"}
    assert "a is held at 1.0.0" in refused(ResolutionError, offers, "b@2", installed=[held])


def test_pinned_packs_stay_within_the_pin() -> None:
    offers = several("a", "1.0.0", "1.0.9", "1.1.0")
    pinned = Installed(offers[0], pin=Requirement("~1.0"))
    solution = resolve(upgraded(offers, pinned))
    assert versions(solution) == {"a": "1.0.9"}
    assert solution.kept_back == {"a": (Version("1.1.0"), "pinned to ~1.0")}
    outside = Installed(offers[2], pin=Requirement("~1.0"))
    assert versions(resolve(upgraded(offers, outside))) == {"a": "1.1.0"}


def test_what_is_broken_already_keeps_nobody_from_installing() -> None:
    broken = pack("broken", "1.0.0", requires={"lost": "1", "__vram": ">=80"}, conflicts={"x": "*"})
    other = pack("x", "1.0.0")
    offers = several("a", "1.0.0")
    assert choose(offers, "a", installed=[broken, other]) == {
        "a": "1.0.0",
        "broken": "1.0.0",
        "x": "1.0.0",
    }


def test_asking_for_a_broken_pack_mends_it() -> None:
    broken = pack("broken", "1.0.0", requires={"lost": "1"})
    chosen = choose([broken, *several("lost", "1.3.0")], "broken", installed=[broken])
    assert chosen == {"broken": "1.0.0", "lost": "1.3.0"}
    solution = resolve(problem([broken], "broken", installed=[broken]))
    assert versions(solution) == {"broken": "1.0.0"}
    assert "no registry has `lost`" in solution.left_out["lost"]


def test_removing() -> None:
    offers = [*several("a", "1.0.0"), pack("user", "1.0.0", requires={"a": "*"})]
    solution = resolve(problem(offers, installed=offers, remove=frozenset(["user"])))
    assert versions(solution) == {"a": "1.0.0"}
    assert solution.removed == {"user": "you asked for it"}
    text = refused(ResolutionError, offers, installed=offers, remove=frozenset(["a"]))
    assert "user 1.0.0 requires `a`" in text


def test_exact_leaves_only_what_is_asked_for() -> None:
    offers = [pack("a", "1.0.0", requires={"b": "1"}), *several("b", "1.0.0", "1.1.0")]
    extra = pack("extra", "1.0.0")
    installed = [offers[1], extra]
    locked = {"b": offers[2].line.manifest}
    solution = resolve(problem(offers, "a", installed=installed, exact=True, locked=locked))
    assert versions(solution) == {"a": "1.0.0", "b": "1.1.0"}
    assert solution.removed == {"extra": "nothing asks for it"}


# upgrading


def test_upgrade_goes_as_far_as_the_others_let_it() -> None:
    offers = [
        *several("a", "1.0.0", "1.4.0", "2.0.0"),
        pack("legal", "1.0.0", requires={"a": "^1"}),
        *several("free", "1.0.0", "3.0.0"),
    ]
    solution = resolve(upgraded(offers, offers[0], offers[3], offers[4]))
    assert versions(solution) == {"a": "1.4.0", "free": "3.0.0", "legal": "1.0.0"}
    assert solution.kept_back == {"a": (Version("2.0.0"), "legal 1.0.0 requires `a ^1`")}


def test_upgrade_says_what_is_held() -> None:
    offers = several("a", "1.0.0", "2.0.0")
    solution = resolve(upgraded(offers, Installed(offers[0], held=True)))
    assert versions(solution) == {"a": "1.0.0"}
    assert solution.kept_back == {"a": (Version("2.0.0"), "held")}


def test_upgrade_of_one_leaves_the_others() -> None:
    offers = [*several("a", "1.0.0", "2.0.0"), *several("b", "1.0.0", "2.0.0")]
    asked = problem(offers, installed=[offers[0], offers[2]], upgrade=frozenset("a"))
    assert versions(resolve(asked)) == {"a": "2.0.0", "b": "1.0.0"}


def test_upgrade_brings_what_the_new_version_requires() -> None:
    offers = [
        pack("a", "1.0.0"),
        pack("a", "2.0.0", requires={"b": "1"}),
        *several("b", "1.0.0"),
        pack("a", "3.0.0", requires={"nowhere": "1"}),
    ]
    solution = resolve(upgraded(offers, offers[0]))
    assert versions(solution) == {"a": "2.0.0", "b": "1.0.0"}
    assert solution.kept_back["a"] == (Version("3.0.0"), "a 3.0.0 requires `nowhere 1`")


def test_upgrade_passes_over_what_does_not_fit_the_machine() -> None:
    offers = [pack("a", "1.0.0"), pack("a", "2.0.0", requires={"__vram": ">=16"})]
    solution = resolve(upgraded(offers, offers[0]))
    assert versions(solution) == {"a": "1.0.0"}
    reason = "2.0.0 needs `__vram >=16`, and this machine has none"
    assert solution.kept_back == {"a": (Version("2.0.0"), reason)}


def test_upgrade_never_removes_and_full_upgrade_may() -> None:
    offers = [
        *several("a", "1.0.0"),
        pack("a", "2.0.0", conflicts={"b": "*"}),
        *several("b", "1.0.0"),
    ]
    installed = [offers[0], Installed(offers[2], auto=True)]
    plain = resolve(upgraded(offers, *installed))
    assert versions(plain) == {"a": "1.0.0", "b": "1.0.0"}
    assert plain.kept_back == {"a": (Version("2.0.0"), "a 2.0.0 conflicts with b 1.0.0")}
    full = resolve(upgraded(offers, *installed, removable=True))
    assert versions(full) == {"a": "2.0.0"}
    assert full.removed == {"b": "conflicts with a 2.0.0"}


def test_full_upgrade_removes_nothing_for_a_mere_version() -> None:
    offers = [
        pack("a", "1.0.0", requires={"c": "*"}),
        pack("a", "2.0.0", requires={"c": "2"}),
        pack("b", "1.0.0", requires={"c": "1"}),
        *several("c", "1.0.0", "2.0.0"),
    ]
    solution = resolve(upgraded(offers, offers[0], offers[2], offers[3], removable=True))
    assert versions(solution) == {"a": "1.0.0", "b": "1.0.0", "c": "1.0.0"}
    assert not solution.removed


# bases and machines


def test_versions_for_other_bases_are_passed_over() -> None:
    offers = [pack("a", "1.0.0"), pack("a", "2.0.0", base=ELSEWHERE)]
    assert choose(offers, "a") == {"a": "1.0.0"}
    assert "eeeeeeeeeeee" in refused(IntegrityError, offers[1:], "a")
    mixed = [offers[1], pack("a", "1.0.0", yanked=True)]
    text = refused(ResolutionError, mixed, "a")
    assert "1.0.0 is yanked" in text
    assert "2.0.0 was made for base tiny" in text


def test_one_base_of_each_name() -> None:
    offers = [
        pack("a", "1.0.0"),
        pack("b", "1.0.0"),
        pack("b", "2.0.0", OLDER),
        pack("c", "1.0.0", OTHER),
    ]
    assert choose(offers, "a", "b", "c") == {"a": "1.0.0", "b": "1.0.0", "c": "1.0.0"}
    assert choose(offers, "b") == {"b": "2.0.0"}
    assert choose(offers, "b", installed=offers[:1]) == {"a": "1.0.0", "b": "1.0.0"}
    assert "another base tiny" in refused(ResolutionError, offers, "a", "b@2")


def test_hardware_decides_between_versions() -> None:
    offers = [
        pack("a", "1.0.0"),
        pack("a", "2.0.0", requires={"__ram": ">=8"}),
        pack("a", "3.0.0", requires={"__ram": ">=8", "__vram": ">=16"}),
    ]
    for hardware, expected in (({}, "1.0.0"), ({"__ram": "8.0.0"}, "2.0.0")):
        there = {name: Version(text) for name, text in hardware.items()}
        assert choose(offers, "a", hardware=there) == {"a": expected}
    all_of_it = {"__ram": Version("15.6.0"), "__vram": Version("24.0.0")}
    assert choose(offers, "a", hardware=all_of_it) == {"a": "3.0.0"}


class _Untouchable(Mapping[str, Version]):
    def __getitem__(self, name: str) -> Version:
        raise AssertionError(f"{name} was looked at")

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("looked at")

    def __len__(self) -> int:
        raise AssertionError("looked at")


def test_hardware_is_looked_at_only_where_it_matters() -> None:
    offers = [pack("a", "1.0.0", requires={"b": "1"}), *several("b", "1.0.0", "1.1.0")]
    assert "b" in choose(offers, "a", hardware=_Untouchable())
