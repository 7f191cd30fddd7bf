"""What manifest, pack.toml, index line and recipe all say of a pack."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from specs.model import Contract
from specs.names import Name, Requirable, Sha256
from specs.versions import RequirementText, VersionText


class BaseRef(Contract):
    """The base a pack was made for; the fingerprint decides, the name is for people."""

    name: Name
    fingerprint: Sha256


class Described(Contract):
    """What a pack is called and what it is for."""

    name: Name
    version: VersionText
    domain: Name
    description: Annotated[str, Field(min_length=1, max_length=2000)]
    license: Annotated[str, Field(min_length=1, max_length=200)]
    """An SPDX licence expression."""
    notes: Annotated[str, Field(max_length=2000)] = ""
    """What is new in this version, in plain text; `mbpm changelog` shows it."""


MAX_RELATIONS = 1000
"""Names one version may require, recommend, conflict with, provide or replace, each."""

Needs = Annotated[dict[Requirable, RequirementText], Field(max_length=MAX_RELATIONS)]
Named = Annotated[dict[Name, RequirementText], Field(max_length=MAX_RELATIONS)]


class Relations(Contract):
    """Names mapped to version requirements, with apt's meaning of the fields."""

    requires: Needs = {}
    """Packs, or what a machine must have: `__ram` and `__vram` in GiB, `__cc` for the compute
    capability of a CUDA device."""
    recommends: Named = {}
    conflicts: Named = {}
    provides: Annotated[tuple[Name, ...], Field(max_length=MAX_RELATIONS)] = ()
    replaces: Named = Field(default_factory=dict)
    """Packs that this one takes the place of: it provides their names and conflicts with them."""

    _late: ClassVar[tuple[str, ...]] = ("notes", "replaces")
