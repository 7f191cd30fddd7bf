"""A generation: one numbered, complete state of what is installed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from specs.index_line import IndexLine
from specs.model import Contract
from specs.names import Name, Sha256
from specs.versions import VersionText


class InstalledPack(Contract):
    """A pack of this generation."""

    name: Name
    version: VersionText
    manifest: Sha256
    base: Name
    registry: str
    """Where it came from: a registry's name or path, or `folder` / `archive` and its path."""
    auto: bool = False
    """Whether it came only as a dependency."""


class InstalledBase(Contract):
    """A base of this generation."""

    name: Name
    fingerprint: Sha256
    card: Sha256
    auto: bool = False


class Generation(Contract):
    """Everything installed at one moment."""

    format: Literal[1] = 1
    number: Annotated[int, Field(ge=0)]
    created: str
    command: str
    """The command line that made it, for history."""
    packs: tuple[InstalledPack, ...] = ()
    bases: tuple[InstalledBase, ...] = ()

    def pack(self, name: str) -> InstalledPack | None:
        """The installed pack called `name`, if any."""
        return next((p for p in self.packs if p.name == name), None)

    def base(self, name: str) -> InstalledBase | None:
        """The installed base called `name`, if any."""
        return next((b for b in self.bases if b.name == name), None)


class PlannedPack(Contract):
    """One pack a plan installs, upgrades or removes."""

    name: Name
    old: VersionText | None
    new: VersionText | None
    line: IndexLine | None = None
    fetch_bytes: int = 0
    disk_bytes: int = 0
    memory_bytes: int = 0


class PlannedBase(Contract):
    """One base a plan installs or removes."""

    name: Name
    action: Literal["install", "remove"]
    fetch_bytes: int = 0
    disk_bytes: int = 0
    memory_bytes: int = 0


class Plan(Contract):
    """What a command is about to do, shown before it does it."""

    packs: tuple[PlannedPack, ...] = ()
    bases: tuple[PlannedBase, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.packs and not self.bases

    @property
    def fetch_bytes(self) -> int:
        """Bytes to fetch that are not in the store yet."""
        return sum(p.fetch_bytes for p in self.packs) + sum(b.fetch_bytes for b in self.bases)

    @property
    def disk_bytes(self) -> int:
        """Bytes of disk the change takes (negative when it frees them)."""
        return sum(p.disk_bytes for p in self.packs) + sum(b.disk_bytes for b in self.bases)
