"""`pack.toml`: what an author writes; `mbpm pack` makes the manifest from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from specs.errors import NotFoundError
from specs.manifest import PackDescription
from specs.model import Contract

PACK_TOML = "pack.toml"


class Gates(Contract):
    """What the evaluation must show before `mbpm publish` accepts the pack."""

    min_gain: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """The lower end of the main metric's gain interval must be above this."""


class PackToml(PackDescription):
    """The author's description of a pack."""

    format: Literal[1] = 1
    gates: Gates = Gates()


def read_pack_toml(folder: Path) -> PackToml:
    """Read `pack.toml` of a pack folder.

    Raises:
        NotFoundError: there is none.
        IntegrityError: it is not TOML, or not what is expected.
    """
    file = folder / PACK_TOML
    if not file.is_file():
        raise NotFoundError(
            f"{folder} is not a pack folder: it has no {PACK_TOML}",
            hint="make one with `mbpm train --domain NAME --data FILE`",
        )
    return PackToml.read_toml(file)
