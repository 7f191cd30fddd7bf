"""Versions and requirements, against models simple enough to be read."""

from __future__ import annotations

import itertools

import pytest
import semver
from hypothesis import given
from hypothesis import strategies as st

from specs.versions import Requirement, Version

small = st.integers(0, 3)
releases = st.tuples(small, small, small)
PRE = ["", "-0", "-alpha", "-alpha.1", "-alpha.beta", "-beta.2", "-beta.11", "-rc.1"]


def text(parts: tuple[int, int, int], pre: str = "") -> str:
    return "{}.{}.{}".format(*parts) + pre


def admits(requirement: str, version: str) -> bool:
    return Requirement(requirement).admits(Version(version))


def test_precedence_of_the_semver_specification() -> None:
    ordered = [
        *("1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2"),
        *("1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "2.0.0", "2.1.0", "2.1.1", "10.0.0"),
    ]
    versions = [Version(t) for t in ordered]
    for (i, a), (j, b) in itertools.product(enumerate(versions), repeat=2):
        assert (a < b, a == b, a > b) == (i < j, i == j, i > j)


@pytest.mark.parametrize(
    "bad", ["", "1", "1.2", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3 ", "1.2.x", "1" * 101]
)
def test_what_is_not_a_version(bad: str) -> None:
    with pytest.raises(ValueError, match="version"):
        Version(bad)


pieces = st.text("01a-", max_size=3)


@given(
    st.lists(st.sampled_from(["0", "1", "01", "20"]), min_size=2, max_size=4),
    st.lists(pieces, max_size=3),
    st.lists(pieces, max_size=2),
)
def test_the_grammar_is_that_of_semver(
    release: list[str], pre: list[str], build: list[str]
) -> None:
    written = ".".join(release)
    written += f"-{'.'.join(pre)}" if pre else ""
    written += f"+{'.'.join(build)}" if build else ""
    try:
        theirs = semver.Version.parse(written)
    except ValueError:
        with pytest.raises(ValueError, match="is not a version"):
            Version(written)
        return
    ours = Version(written)
    assert ours.parts == (theirs.major, theirs.minor, theirs.patch)
    assert ours.prerelease == theirs.prerelease


def test_build_metadata_does_not_tell_versions_apart() -> None:
    assert Version("1.0.0+a") == Version("1.0.0+b")
    assert len({Version("1.0.0+a"), Version("1.0.0+b"), Version("1.0.0")}) == 1
    assert admits("=1.0.0", "1.0.0+linux")


@given(releases, releases, st.sampled_from(PRE), st.sampled_from(PRE))
def test_comparing_agrees_with_hashing_and_is_total(
    a: tuple[int, int, int], b: tuple[int, int, int], pre_a: str, pre_b: str
) -> None:
    x, y = Version(text(a, pre_a)), Version(text(b, pre_b))
    assert (x < y) + (x == y) + (x > y) == 1
    if x == y:
        assert hash(x) == hash(y)
    if a != b:
        assert (x < y) == (a < b)


@given(releases, releases)
def test_caret_keeps_the_left_most_nonzero_part(
    wanted: tuple[int, int, int], found: tuple[int, int, int]
) -> None:
    fixed = next((i for i, part in enumerate(wanted) if part), 2)
    expected = found >= wanted and found[: fixed + 1] == wanted[: fixed + 1]
    assert admits(f"^{text(wanted)}", text(found)) == expected
    assert admits(text(wanted), text(found)) == expected


@given(releases, releases)
def test_tilde_keeps_the_minor_version(
    wanted: tuple[int, int, int], found: tuple[int, int, int]
) -> None:
    assert admits(f"~{text(wanted)}", text(found)) == (found >= wanted and found[:2] == wanted[:2])


@given(st.sampled_from(["<", "<=", "=", ">=", ">"]), releases, releases)
def test_comparisons(op: str, wanted: tuple[int, int, int], found: tuple[int, int, int]) -> None:
    expected = {
        "<": found < wanted,
        "<=": found <= wanted,
        "=": found == wanted,
        ">=": found >= wanted,
        ">": found > wanted,
    }[op]
    assert admits(f"{op}{text(wanted)}", text(found)) == expected
    assert admits(f"{op} {text(wanted)}", text(found)) == expected


@given(st.sampled_from(["<", "<=", "=", ">=", ">"]), small, small, releases)
def test_partial_versions_stand_for_all_they_begin(
    op: str, major: int, minor: int, found: tuple[int, int, int]
) -> None:
    for digits in ((major,), (major, minor)):
        head = found[: len(digits)]
        expected = {
            "<": head < digits,
            "<=": head <= digits,
            "=": head == digits,
            ">=": head >= digits,
            ">": head > digits,
        }[op]
        assert admits(op + ".".join(map(str, digits)), text(found)) == expected


@given(small, small, releases)
def test_wildcards(major: int, minor: int, found: tuple[int, int, int]) -> None:
    assert admits("*", text(found))
    assert admits(f"{major}.*", text(found)) == (found[0] == major)
    assert admits(f"{major}.{minor}.*", text(found)) == (found[:2] == (major, minor))


@pytest.mark.parametrize(
    ("requirement", "inside", "outside"),
    [
        ("^1.2", "1.9.0", "2.0.0"),
        ("^0.2", "0.2.9", "0.3.0"),
        ("^0.0", "0.0.9", "0.1.0"),
        ("^0", "0.9.9", "1.0.0"),
        ("~1", "1.9.9", "2.0.0"),
        (">=1, <3", "2.9.9", "3.0.0"),
        (">=1.2.3, <1.5", "1.4.9", "1.5.0"),
    ],
)
def test_examples_of_the_cargo_book(requirement: str, inside: str, outside: str) -> None:
    assert admits(requirement, inside)
    assert not admits(requirement, outside)


@given(st.sampled_from(["*", "^1.2", ">=1", "<2", "1.*", "=1"]), releases)
def test_a_prerelease_must_be_asked_for(requirement: str, found: tuple[int, int, int]) -> None:
    assert not admits(requirement, text(found, "-rc.1"))


def test_a_prerelease_is_admitted_only_where_its_own_release_is_named() -> None:
    assert admits("^1.2.0-beta.1", "1.2.0-beta.2")
    assert admits("^1.2.0-beta.1", "1.2.0")
    assert not admits("^1.2.0-beta.1", "1.2.0-alpha")
    assert not admits("^1.2.0-beta.1", "1.2.1-rc.1")
    assert not admits(">=1.0.0, <2.0.0-rc.1, <1.5", "2.0.0-beta")


@given(releases, st.sampled_from(PRE[1:]))
def test_nothing_below_a_release_lets_its_prereleases_in(
    limit: tuple[int, int, int], pre: str
) -> None:
    assert not admits(f"<{text(limit)}", text(limit, pre))


@pytest.mark.parametrize(
    "bad",
    ["", "x", "1.2.3.4", ">", "=>1", "^*", "1.*.3", "1.2-beta", "1,", ">=1 <2", "01", "1" * 201],
)
def test_what_is_not_a_requirement(bad: str) -> None:
    with pytest.raises(ValueError, match=r"requirement|pre-release"):
        Requirement(bad)


@given(st.text(max_size=30))
def test_any_text_is_either_read_or_refused_in_words(noise: str) -> None:
    for kind in (Version, Requirement):
        try:
            assert str(kind(noise)) == noise
        except ValueError as error:
            assert str(error)


@given(releases, st.sampled_from(PRE), releases, releases)
def test_a_list_is_the_conjunction_of_its_comparators(
    found: tuple[int, int, int], pre: str, low: tuple[int, int, int], high: tuple[int, int, int]
) -> None:
    a, b = f">={text(low)}", f"<{text(high)}"
    both = Requirement(f"{a}, {b}").admits(Version(text(found)))
    assert both == (admits(a, text(found)) and admits(b, text(found)))


def test_pre_releases_can_be_let_in() -> None:
    for requirement in ("1", ">=1", "*", "~1.2"):
        version = Version("1.2.3-rc.1")
        assert not Requirement(requirement).admits(version)
        assert Requirement(requirement).admits(version, prereleases=True)
    assert not Requirement("1").admits(Version("2.0.0-rc.1"), prereleases=True)


@pytest.mark.parametrize(
    "bad", [",", "*,1", "1\n", "1.0.0-a\n", "1\u0661", "\uff11", "\u00a01", "1\x00", ">=1\t", "1 2"]
)
def test_nothing_passes_for_a_requirement(bad: str) -> None:
    with pytest.raises(ValueError, match="is not a version requirement"):
        Requirement(bad)


@pytest.mark.parametrize("bad", ["1.0.0\n", "1\u0661.0.0", "\uff11.0.0", "1.0.0\x00"])
def test_nothing_passes_for_a_version(bad: str) -> None:
    with pytest.raises(ValueError, match="version"):
        Version(bad)


nearly = st.text("0123456789.-+*^~=<>, abrcx\n\u0661", max_size=20)


@given(nearly)
def test_any_text_is_a_version_that_reads_back_or_refused(noise: str) -> None:
    try:
        version = Version(noise)
    except ValueError:
        return
    assert Version(str(version)) == version
    assert noise.isascii()
    assert noise.isprintable()
    assert not version < version


@given(nearly)
def test_any_text_is_a_requirement_or_refused(noise: str) -> None:
    try:
        requirement = Requirement(noise)
    except ValueError:
        return
    assert noise.isascii()
    assert noise.isprintable()
    # whatever it means, it decides about every version, and opting in only lets more in
    for version in map(Version, ("0.0.0", "1.0.0-rc.1", "1.2.3", "999.0.0")):
        assert requirement.admits(version) <= requirement.admits(version, prereleases=True)


comparators = st.tuples(st.sampled_from(["^", "~", "=", ">=", "<=", ">", "<"]), releases)


@given(st.lists(comparators, min_size=1, max_size=3), releases, st.sampled_from(PRE))
def test_commas_mean_all_of_them(
    parts: list[tuple[str, tuple[int, int, int]]], found: tuple[int, int, int], pre: str
) -> None:
    version = Version(text(found, pre))
    each = [Requirement(op + text(wanted)) for op, wanted in parts]
    whole = Requirement(", ".join(map(str, each)))
    assert whole.admits(version, prereleases=True) == all(
        one.admits(version, prereleases=True) for one in each
    )
