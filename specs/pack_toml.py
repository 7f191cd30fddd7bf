"""`pack.toml`: what an author writes; `mbpm pack` makes the manifest from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tomli
from pydantic import Field

from specs.errors import IntegrityError, NotFoundError
from specs.manifest import PackDescription
from specs.model import MAX_DOCUMENT_BYTES, Contract

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
    if file.stat().st_size > MAX_DOCUMENT_BYTES:
        raise IntegrityError(f"{file}: is larger than {MAX_DOCUMENT_BYTES:,} bytes")
    try:
        value = tomli.loads(file.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{file}: is not UTF-8 (byte {error.start})") from None
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise IntegrityError(f"{file}: is not TOML ({error})") from None
    return PackToml.from_object(value, str(file))
