"""`pack.toml`: what an author writes; `mbpm pack` makes the manifest from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from specs.errors import NotFoundError
from specs.manifest import PackDescription
from specs.model import Contract

PACK_TOML = "pack.toml"


Bound = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ShareBound = Annotated[float, Field(ge=0, le=1)]


class Gates(Contract):
    """What the evaluation must show before `mbpm publish` accepts the pack (docs/adr/0013)."""

    min_gain: Bound = 0.0
    """The lower end of the main metric's gain interval must be above this."""
    max_kl: Bound = 0.1
    """Mean divergence from the base on general prompts where the router decides, in nats per
    token."""
    max_general_loss: ShareBound = 0.05
    """Accuracy the general suite may lose where the router decides, at the far end of the interval
    (0.05: five points)."""
    max_active_kl: Bound = 2.0
    """The same with the pack active on every one of those prompts."""
    max_active_loss: ShareBound = 0.05
    """Accuracy the general suite may lose with the pack active on every question, at the near end
    of the interval."""
    min_recall: ShareBound = 0.25
    """Share of its own held-out questions that the router must give to it, at the interval's lower
    end."""
    max_false_fires: ShareBound = 0.08
    """Share of general prompts that the router may give to it, at the interval's upper end."""
    max_taken: ShareBound = 0.1
    """Share of any other installed pack's questions that the router may give to it, at the
    interval's lower end: how many there are is not in its hands."""


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
