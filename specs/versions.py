"""Versions (SemVer 2.0.0) and requirements in cargo's grammar.

A requirement is a comma-separated list of comparators: `1.2` (the same as `^1.2`), `~1.2`,
`=1.2.3`, `>=1, <3`, `1.*`, `*`. See the Cargo Book, "Specifying Dependencies".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache, total_ordering
from typing import Annotated

from pydantic import AfterValidator

_NUMBER = r"(?:0|[1-9]\d*)"
_PRE = rf"(?:{_NUMBER}|\d*[A-Za-z-][0-9A-Za-z-]*)"
_BUILD = r"[0-9A-Za-z-]+"
_VERSION = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    rf"(?:-({_PRE}(?:\.{_PRE})*))?(?:\+{_BUILD}(?:\.{_BUILD})*)?",
    re.ASCII,
)
"""The grammar of SemVer 2.0.0, as its specification suggests it."""
_COMPARATOR = re.compile(
    r"(?P<op>\^|~|=|>=|<=|>|<)?\s*"
    r"(?P<major>0|[1-9]\d{0,8})"
    r"(?:\.(?P<minor>0|[1-9]\d{0,8}|\*))?"
    r"(?:\.(?P<patch>0|[1-9]\d{0,8}|\*))?"
    r"(?:-(?P<pre>[0-9A-Za-z.-]+))?"
)
_EXAMPLES = "`1.2`, `~1.2`, `=1.2.3`, `>=1, <3`, `1.*` or `*`"


@total_ordering
@dataclass(frozen=True)
class Version:
    """A SemVer version; ordering and equality ignore build metadata."""

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > 100:
            raise ValueError("a version is at most 100 characters long")
        match = _VERSION.fullmatch(self.text)
        if match is None:
            raise ValueError(
                f"{self.text!r} is not a version (expected MAJOR.MINOR.PATCH, such as `1.4.0`)"
            )
        object.__setattr__(self, "_match", match)

    @cached_property
    def parts(self) -> tuple[int, int, int]:
        """Major, minor and patch."""
        match: re.Match[str] = self._match  # type: ignore[attr-defined]
        return int(match[1]), int(match[2]), int(match[3])

    @property
    def prerelease(self) -> str | None:
        """The pre-release part (`rc.1` of `1.0.0-rc.1`), or None."""
        match: re.Match[str] = self._match  # type: ignore[attr-defined]
        return match[4]

    def __str__(self) -> str:
        return self.text

    @cached_property
    def precedence(self) -> tuple[object, ...]:
        """A key that sorts as SemVer 2.0.0, section 11, orders; made once, for resolving sorts
        thousands of versions."""
        if self.prerelease is None:
            return (*self.parts, 1)
        identifiers = tuple(
            (0, int(part), "") if part.isdigit() else (1, 0, part)
            for part in self.prerelease.split(".")
        )
        return (*self.parts, 0, identifiers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return self.precedence == other.precedence

    def __lt__(self, other: Version) -> bool:
        return self.precedence < other.precedence

    def __hash__(self) -> int:
        return hash(self.precedence)


version = lru_cache(maxsize=16384)(Version)
"""Versions made once: thousands of index lines say the same few."""


@dataclass(frozen=True)
class _Comparator:
    """A half-open interval of versions; `pre_base` is the release whose pre-releases it admits."""

    low: Version | None
    low_inclusive: bool
    high: Version | None
    high_inclusive: bool
    pre_base: tuple[int, int, int] | None

    def admits(self, v: Version) -> bool:
        # keys and not versions: resolving asks this a hundred thousand times
        key = v.precedence
        if self.low is not None:
            low = self.low.precedence
            if key < low or (key == low and not self.low_inclusive):
                return False
        if self.high is not None:
            high = self.high.precedence
            if high < key or (key == high and not self.high_inclusive):
                return False
        return True


def _release(parts: tuple[int, int, int]) -> Version:
    return Version("{}.{}.{}".format(*parts))


def _floor(parts: tuple[int, int, int]) -> Version:
    """The lowest version of a release: below all its pre-releases."""
    return Version("{}.{}.{}-0".format(*parts))


def _parse_comparator(text: str) -> _Comparator:
    match = _COMPARATOR.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a version requirement (expected {_EXAMPLES})")
    op, pre = match["op"], match["pre"]
    wildcard = "*" in (match["minor"], match["patch"])
    major = int(match["major"])
    minor = None if match["minor"] in (None, "*") else int(match["minor"])
    patch = None if match["patch"] in (None, "*") else int(match["patch"])
    if (minor is None and patch is not None) or (wildcard and op not in (None, "=")):
        raise ValueError(f"{text!r} is not a version requirement (expected {_EXAMPLES})")
    if pre is not None and patch is None:
        raise ValueError(f"{text!r} needs MAJOR.MINOR.PATCH before the pre-release part")
    base = (major, minor or 0, patch or 0)
    low = Version("{}.{}.{}".format(*base) + (f"-{pre}" if pre else ""))
    pre_base = base if pre else None
    # the first release after everything that the written digits name
    if minor is None:
        after = (major + 1, 0, 0)
    elif patch is None:
        after = (major, minor + 1, 0)
    else:
        after = (major, minor, patch + 1)

    if op == ">=":
        return _Comparator(low, True, None, False, pre_base)
    if op == ">":
        if patch is None:
            return _Comparator(_release(after), True, None, False, None)
        return _Comparator(low, False, None, False, pre_base)
    if op == "<":
        return _Comparator(None, False, low if pre else _floor(base), False, pre_base)
    if op == "<=":
        if patch is None:
            return _Comparator(None, False, _floor(after), False, None)
        return _Comparator(None, False, low, True, pre_base)
    if op == "=" or wildcard:
        if patch is not None:
            return _Comparator(low, True, low, True, pre_base)
        return _Comparator(low, True, _floor(after), False, None)
    if op == "~":
        high = (major, minor + 1, 0) if minor is not None else (major + 1, 0, 0)
        return _Comparator(low, True, _floor(high), False, pre_base)
    # caret: the left-most non-zero part may not change
    if major > 0 or minor is None:
        high = (major + 1, 0, 0)
    elif minor > 0 or patch is None:
        high = (0, minor + 1, 0)
    else:
        high = (0, 0, patch + 1)
    return _Comparator(low, True, _floor(high), False, pre_base)


@dataclass(frozen=True)
class Requirement:
    """A set of acceptable versions, as cargo reads it.

    Raises:
        ValueError: on construction, when `text` is not in the grammar.
    """

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > 200:
            raise ValueError("a version requirement is at most 200 characters long")
        if not (self.text.isascii() and self.text.isprintable()):
            # digits of other scripts, line breaks and the like would pass for something else
            raise ValueError(f"{self.text!r} is not a version requirement (expected {_EXAMPLES})")
        parts = [p.strip() for p in self.text.split(",")]
        comparators = () if parts == ["*"] else tuple(_parse_comparator(p) for p in parts)
        object.__setattr__(self, "_comparators", comparators)

    def admits(self, version: Version, *, prereleases: bool = False) -> bool:
        """Whether `version` fits; a pre-release only where one of its own release is named, or
        with `prereleases`."""
        return _admits(self, version, prereleases)

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=65536)
def _admits(requirement: Requirement, version: Version, prereleases: bool) -> bool:
    """`Requirement.admits`, remembered: resolving asks the same again and again."""
    comparators: tuple[_Comparator, ...] = requirement._comparators  # type: ignore[attr-defined]
    if (
        not prereleases
        and version.prerelease is not None
        and not any(c.pre_base == version.parts for c in comparators)
    ):
        return False
    return all(c.admits(version) for c in comparators)


def _check_version(text: str) -> str:
    return version(text).text


@lru_cache(maxsize=16384)
def _check_requirement(text: str) -> str:
    return Requirement(text).text


VersionText = Annotated[str, AfterValidator(_check_version)]
RequirementText = Annotated[str, AfterValidator(_check_requirement)]
