"""A generation: one numbered, complete state of what is installed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

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
