"""Which registry first provided a name: `origins.json` in the home.

    {"format": 1, "packs": {"medical": "bundled"}}

A name is taken from there ever after, whatever other registries offer: nobody can slip in
a pack by publishing it elsewhere under the same name and a higher version. The record outlives
the pack, and neither `remove` nor `gc` touches it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mbpm.files import write_atomic
from specs.model import MAX_DOCUMENT_BYTES, Contract
from specs.names import Name

if TYPE_CHECKING:
    from specs.generation import InstalledPack

ORIGINS_FILE = "origins.json"
LOCAL = ("folder ", "archive ", "bundle ")
"""Beginnings of `InstalledPack.registry` of what came from no registry."""


class _Origins(Contract):
    format: Literal[1] = 1
    packs: dict[Name, Annotated[str, Field(min_length=1, max_length=4000)]] = {}


def read(home: Path) -> dict[str, str]:
    """Name -> label of the registry that first provided it.

    Raises:
        IntegrityError: the file is malformed.
    """
    file = home / ORIGINS_FILE
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_DOCUMENT_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return dict(_Origins.parse(raw, str(file)).packs)


def record(home: Path, packs: Iterable[InstalledPack], *, told: bool = False) -> None:
    """Remember where packs came from; to be called with the home's writer lock held.

    Args:
        home: The home folder.
        packs: What is installed now. Folders, archives and bundles are no registries.
        told: Whether the person named the registry: then it also replaces an earlier one.
    """
    known = read(home)
    found = {p.name: p.registry for p in packs if not p.registry.startswith(LOCAL)}
    after = {**known, **found} if told else {**found, **known}
    if after != known:
        write_atomic(home / ORIGINS_FILE, _Origins(packs=after).canonical())
