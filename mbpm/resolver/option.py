"""One thing a name can stand for, and why two of them cannot be together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

from specs.names import HARDWARE
from specs.versions import Requirement, Version

if TYPE_CHECKING:
    from mbpm.catalogue import Candidate

ANY = Requirement("*")

requirement = lru_cache(maxsize=16384)(Requirement)
"""Parsed requirements: the same few texts stand in thousands of index lines."""


def unversioned(wanted: Requirement) -> bool:
    """Whether a requirement asks for no version at all, and so also means what has none."""
    return wanted.text.strip() == "*"


def phrase(name: str, wanted: Requirement) -> str:
    """A requirement on a name, as messages show it."""
    return f"`{name}`" if unversioned(wanted) else f"`{name} {wanted}`"


@dataclass(frozen=True)
class Exclusion:
    """Why a version cannot be chosen, whatever else is."""

    kind: Literal["held", "pinned", "yanked", "base", "hardware", "older"]
    what: str
    """In words that follow the pack's name and version."""


@dataclass(eq=False)
class Option:
    """One thing a name can stand for: a version, another pack in its place, or nothing."""

    name: str
    candidate: Candidate | None = None
    via: str | None = None
    """The pack that stands in."""
    replacing: Requirement | None = None
    """Set where that pack takes the place of an installed one: the versions it replaces."""
    installed: bool = False
    """Whether this is what is installed."""
    broken: frozenset[str] = frozenset()
    """Names it requires that are not there now either."""
    excluded: Exclusion | None = None

    @property
    def key(self) -> str:
        """The name, as resolvelib's provider wants it."""
        return self.name

    @cached_property
    def version(self) -> Version:
        """The version of a pack."""
        assert self.candidate is not None
        return self.candidate.version

    @cached_property
    def requires(self) -> tuple[tuple[str, Requirement], ...]:
        """Names and versions it cannot be without."""
        if self.candidate is None:
            return ()
        wanted = self.candidate.line.requires.items()
        skip = self.broken.union(HARDWARE, (self.name,))
        return tuple((name, requirement(text)) for name, text in wanted if name not in skip)

    @cached_property
    def required(self) -> dict[str, Requirement]:
        """`requires` by name."""
        return dict(self.requires)

    @cached_property
    def refuses(self) -> tuple[tuple[str, Requirement], ...]:
        """Names and versions it cannot be with: what it conflicts with or replaces."""
        if self.candidate is None:
            return ()
        line = self.candidate.line
        refused = (*line.conflicts.items(), *line.replaces.items())
        return tuple((name, requirement(text)) for name, text in refused if name != self.name)

    @cached_property
    def stands_for(self) -> frozenset[str]:
        """Other names it provides."""
        if self.candidate is None:
            return frozenset()
        line = self.candidate.line
        return frozenset((*line.provides, *line.replaces)) - {self.name}

    def replaces(self, name: str, version: Version) -> bool:
        """Whether it takes the place of that version."""
        if self.candidate is None or name == self.name:
            return False
        text = self.candidate.line.replaces.get(name)
        return text is not None and requirement(text).admits(version, prereleases=True)

    def __str__(self) -> str:
        return f"{self.name} {self.version}" if self.candidate else f"no {self.name}"


@dataclass(frozen=True)
class Clash:
    """Why two options cannot be together."""

    kind: Literal["requires", "conflicts", "replaces", "base", "stands"]
    by: Option
    """The one that says so."""
    name: str = ""
    wanted: Requirement = ANY
