"""What the resolver is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from specs.versions import Requirement, Version

if TYPE_CHECKING:
    from mbpm.catalogue import Candidate


@dataclass(frozen=True)
class Request:
    """What a command line asks for: a pack of this very name."""

    name: str
    requirement: Requirement | None = None
    pinned: Candidate | None = None
    """The one candidate, for a folder or an archive."""


@dataclass(frozen=True)
class Installed:
    """An installed pack and what is recorded of it."""

    candidate: Candidate
    auto: bool = False
    """Whether it came only because something else needs it."""
    held: bool = False
    """Whether it must stay at this very version."""
    pin: Requirement | None = None
    """The versions it may be changed to."""


@dataclass(frozen=True)
class Problem:
    """Everything that decides which packs are installed afterwards."""

    requests: tuple[Request, ...]
    """What must be there afterwards."""
    installed: Mapping[str, Installed]
    lookup: Callable[[str], Sequence[Candidate]]
    """Versions of a name, in any order; raises NotFoundError."""
    providers: Callable[[str], Sequence[str]]
    """Names of packs of which some version provides or replaces this name."""
    bases: Mapping[str, str]
    """Fingerprint -> name, of the bases that are installed or on offer."""
    hardware: Mapping[str, Version]
    """`__ram`, `__vram` (GiB) and `__cc`; what the machine does not have is missing."""
    upgrade: frozenset[str] = frozenset()
    """Installed packs that should become as new as possible; others stay where they can."""
    remove: frozenset[str] = frozenset()
    """What must not be there afterwards."""
    removable: bool = False
    """Whether installed packs that are replaced by or conflict with others may go."""
    exact: bool = False
    """Whether installed packs go that nothing asks for."""
    recommends: bool = True
    prereleases: bool = False
    """Whether any pre-release will do; else only those that a requirement names."""
    locked: Mapping[str, str] = field(default_factory=dict)
    """Name -> manifest digest, preferred above all, even when yanked."""


@dataclass(frozen=True)
class Solution:
    """What is installed afterwards, and what is worth telling about it."""

    packs: Mapping[str, Candidate]
    """Everything that is installed afterwards."""
    needed_by: Mapping[str, tuple[str, ...]]
    """Name -> `legal 1.2.0`, the packs that require or recommend it; empty for others."""
    removed: Mapping[str, str]
    """Name -> reason, of the installed packs that go."""
    left_out: Mapping[str, str]
    """Name -> reason, of packs that are recommended but cannot be had."""
    kept_back: Mapping[str, tuple[Version, str]]
    """Name -> newest version and reason, of the packs in `Problem.upgrade` that stay older."""
