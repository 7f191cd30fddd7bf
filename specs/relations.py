"""What a pack says about other packs; shared by manifest, index line and pack.toml."""

from __future__ import annotations

from specs.model import Contract
from specs.names import Name
from specs.versions import RequirementText


class Relations(Contract):
    """Names mapped to version requirements, with apt's meaning of the four fields."""

    requires: dict[Name, RequirementText] = {}
    recommends: dict[Name, RequirementText] = {}
    conflicts: dict[Name, RequirementText] = {}
    provides: tuple[Name, ...] = ()
