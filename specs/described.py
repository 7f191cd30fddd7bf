"""What manifest, pack.toml, index line and recipe all say of a pack."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from specs.model import Contract
from specs.names import Name
from specs.versions import RequirementText, VersionText


class Described(Contract):
    """What a pack is called and what it is for."""

    name: Name
    version: VersionText
    domain: Name
    description: Annotated[str, Field(min_length=1, max_length=2000)]
    license: Annotated[str, Field(min_length=1, max_length=200)]
    """An SPDX licence expression."""


class Relations(Contract):
    """Names mapped to version requirements, with apt's meaning of the four fields."""

    requires: dict[Name, RequirementText] = {}
    recommends: dict[Name, RequirementText] = {}
    conflicts: dict[Name, RequirementText] = {}
    provides: tuple[Name, ...] = ()
