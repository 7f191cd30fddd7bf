"""Which registry first provided a name: `origins.json` of a profile.

    {"format": 1, "packs": {"medical": "bundled"}}

A name is taken from there ever after, whatever other registries offer: nobody can slip in
a pack by publishing it elsewhere under the same name and a higher version. The record outlives
the pack, and neither `remove` nor `gc` touches it.

What the default profile knows counts for all; what another one learned, as that of a project that
was checked out, counts for itself alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mbpm.files import write_atomic
from specs.errors import IntegrityError
from specs.model import MAX_DOCUMENT_BYTES, Contract
from specs.names import Name

if TYPE_CHECKING:
    from mbpm.home import Home
    from specs.generation import InstalledPack

ORIGINS_FILE = "origins.json"
LOCAL = ("folder ", "archive ", "bundle ")
"""Beginnings of `InstalledPack.registry` of what came from no registry."""


class _Origins(Contract):
    format: Literal[1] = 1
    packs: dict[Name, Annotated[str, Field(min_length=1, max_length=4000)]] = {}


def read(home: Home) -> dict[str, str]:
    """Name -> label of the registry that first provided it, as far as a profile knows.

    Raises:
        IntegrityError: a file is malformed.
    """
    return {n: r for root in dict.fromkeys((home.path, home.root)) for n, r in _read(root).items()}


def _read(root: Path) -> dict[str, str]:
    file = root / ORIGINS_FILE
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_DOCUMENT_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        return dict(_Origins.parse(raw, str(file)).packs)
    except IntegrityError as error:
        raise IntegrityError(
            error.message, hint="`mbpm repair` makes it again from what was installed"
        ) from None


def record(home: Home, packs: Iterable[InstalledPack], *, told: bool = False) -> None:
    """Remember where a profile's packs came from; to be called with the writer's lock held.

    Args:
        home: The home.
        packs: What is installed now. Folders, archives and bundles are no registries.
        told: Whether the person named the registry: then it also replaces an earlier one.
    """
    known = _read(home.root)
    found = {p.name: p.registry for p in packs if not p.registry.startswith(LOCAL)}
    after = {**known, **found} if told else {**found, **known}
    if after != known:
        write_atomic(home.root / ORIGINS_FILE, _Origins(packs=after).canonical())


def rebuild(home: Home) -> None:
    """Make a damaged record again from the history; to be called with the writer's lock held.

    Names that the profile never had installed are not in it any more.
    """
    found: dict[str, str] = {}
    for generation in home.generations():
        for pack in generation.packs:
            if not pack.registry.startswith(LOCAL):
                found.setdefault(pack.name, pack.registry)
    write_atomic(home.root / ORIGINS_FILE, _Origins(packs=found).canonical())
