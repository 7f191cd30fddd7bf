"""A plan: what a command is about to do, shown before it does it."""

from __future__ import annotations

from typing import Literal

from specs.index_line import IndexLine
from specs.model import Contract
from specs.names import Name
from specs.versions import VersionText

Action = Literal["install", "upgrade", "downgrade", "replace", "remove", "repair", "mark", "purge"]
"""`purge` frees what only earlier generations have."""


class PlannedPack(Contract):
    """One pack a plan changes."""

    name: Name
    action: Action
    old: VersionText | None
    new: VersionText | None
    registry: str = ""
    """Where the new version comes from."""
    auto: bool = False
    """Whether it comes only because something else needs it."""
    reason: str = ""
    """Why, where the command line does not say it: `required by legal 1.2.0`."""
    old_publisher: str | None = None
    """Who published the old version, where that is known and the new one's publisher is another."""
    line: IndexLine | None = None
    fetch_bytes: int = 0
    disk_bytes: int = 0
    memory_bytes: int = 0


class PlannedBase(Contract):
    """One base a plan installs, repairs or removes."""

    name: Name
    action: Literal["install", "remove", "repair", "mark"]
    reason: str = ""
    """What about it changes, for `mark`."""
    fetch_bytes: int = 0
    disk_bytes: int = 0
    memory_bytes: int = 0


class KeptBack(Contract):
    """An installed pack that stays as it is although a newer version exists."""

    name: Name
    version: VersionText
    newest: VersionText
    reason: str


class LeftOut(Contract):
    """A recommended pack that is not installed."""

    name: Name
    reason: str


class Plan(Contract):
    """Everything a command is about to do."""

    packs: tuple[PlannedPack, ...] = ()
    bases: tuple[PlannedBase, ...] = ()
    kept_back: tuple[KeptBack, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    resident_bytes: int = 0
    """Memory that the largest base and all packs take afterwards."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.packs and not self.bases

    @property
    def actions(self) -> frozenset[str]:
        """Everything that is done, to packs and to bases."""
        return frozenset([*(p.action for p in self.packs), *(b.action for b in self.bases)])

    @property
    def fetch_bytes(self) -> int:
        """Bytes to fetch that are not in the store yet."""
        return sum(p.fetch_bytes for p in self.packs) + sum(b.fetch_bytes for b in self.bases)

    @property
    def disk_bytes(self) -> int:
        """Bytes of disk the change takes (negative when it frees them)."""
        return sum(p.disk_bytes for p in self.packs) + sum(b.disk_bytes for b in self.bases)
