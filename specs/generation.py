"""A generation: one numbered, complete state of what is installed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from specs.index_line import IndexLine
from specs.model import Contract
from specs.names import Name, Sha256
from specs.versions import RequirementText, VersionText


class InstalledPack(Contract):
    """A pack of this generation."""

    name: Name
    version: VersionText
    manifest: Sha256
    base: Name
    registry: str
    """Where it came from: `bundled`, a registry's address or path, or `folder`, `archive` or
    `bundle` and a path. Upgrades come from the same place unless somebody says otherwise."""
    publisher: str | None = None
    """Who published it, as its registry says."""
    auto: bool = False
    """Whether it came only because something else needs it."""
    held: bool = False
    """Whether it must stay at this very version."""
    pin: RequirementText | None = None
    """The versions it may be changed to."""


class InstalledBase(Contract):
    """A base of this generation."""

    name: Name
    fingerprint: Sha256
    card: Sha256
    registry: str = "bundled"
    """Where its card came from, as `InstalledPack.registry`."""
    auto: bool = False


Cause = Literal["change", "undo", "redo", "rollback"]


class Generation(Contract):
    """Everything installed at one moment."""

    format: Literal[1] = 1
    number: Annotated[int, Field(ge=0)]
    created: str
    command: str
    """The command line that made it, for history."""
    cause: Cause = "change"
    restores: Annotated[int, Field(ge=0)] | None = None
    """The generation whose content this one repeats; every cause but `change` has one."""
    packs: tuple[InstalledPack, ...] = ()
    bases: tuple[InstalledBase, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> Generation:
        for what, names in (
            ("pack", [p.name for p in self.packs]),
            ("base", [b.name for b in self.bases]),
        ):
            if len(set(names)) < len(names):
                twice = next(n for n in names if names.count(n) > 1)
                raise ValueError(f"{what} `{twice}` stands twice")
        return self

    def pack(self, name: str) -> InstalledPack | None:
        """The installed pack called `name`, if any."""
        return next((p for p in self.packs if p.name == name), None)

    def base(self, name: str) -> InstalledBase | None:
        """The installed base called `name`, if any."""
        return next((b for b in self.bases if b.name == name), None)


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
    """What a command is about to do, shown before it does it."""

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
