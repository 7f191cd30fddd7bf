"""Where what answers a question lies."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specs.errors import NotFoundError
from specs.json_text import MAX_DOCUMENT_BYTES

if TYPE_CHECKING:
    from mbpm.home import Home
    from specs.generation import Generation, InstalledBase


@dataclass(frozen=True)
class Place:
    """A base and the packs installed beside it, the one that was asked for among them."""

    base: str
    base_dir: Path
    pack_dirs: tuple[Path, ...]
    router_table: Path
    """Where the routing table of the base's packs is, if it was made."""


def find(home: Home, base: str | None, pack: str | None) -> Place:
    """Where a base and its packs are.

    Args:
        base: the one that was asked for; None for the default.
        pack: one that has to be there.

    Raises:
        NotFoundError: the base or the pack is not installed.
        IntegrityError: what says so, or what it names, is damaged.
    """
    try:
        return _seen(home, base, pack)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass  # anything out of the ordinary is told by whoever reads all of it
    from mbpm.triggers import router_table

    generation = home.current()
    installed = installed_base(home, generation, base)
    if pack is not None and generation.pack(pack) is None:
        raise NotFoundError(
            f"the pack `{pack}` is not installed", hint=f"`mbpm install {pack}` installs it"
        )
    return Place(
        installed.name,
        home.base_dir(installed),
        tuple(home.pack_dirs()),
        router_table(home, generation, installed),
    )


def installed_base(home: Home, generation: Generation, name: str | None) -> InstalledBase:
    """The base to use.

    Args:
        home: Where to look.
        generation: What is installed in it.
        name: The one that was asked for; None for the default.

    Raises:
        NotFoundError: it is not installed, or none is.
    """
    if name is None:
        return home.default_base()
    if (found := generation.base(name)) is None:
        raise NotFoundError(
            f"the base `{name}` is not installed", hint=f"`mbpm base install {name}` installs it"
        )
    return found


def _seen(home: Home, base: str | None, pack: str | None) -> Place:
    """The same from as much of the current generation as it takes, which this program wrote.

    Raises:
        OSError, ValueError, LookupError, TypeError, AttributeError: it does not take so little.
    """
    from mbpm.home import DEFAULT_BASE
    from mbpm.triggers import router_file

    number = home.pointer.read_text("ascii").strip()
    if not number.isdecimal():
        raise ValueError
    with home.generation_path(int(number)).open("rb") as stream:
        value: Any = json.loads(stream.read(MAX_DOCUMENT_BYTES))
    if (value["format"], value["number"]) != (1, int(number)):
        raise ValueError
    bases = {b["name"]: b for b in value["bases"]}
    packs = {p["name"]: p for p in value["packs"]}
    default = DEFAULT_BASE if DEFAULT_BASE in bases else next(iter(bases), "")
    chosen = bases[default if base is None else base]
    if pack is not None:
        packs[pack]
    store = home.store
    base_dir = store.base_path(_digest(chosen["card"]))
    pack_dirs = tuple(store.pack_path(_digest(packs[n]["manifest"])) for n in sorted(packs))
    if not all(folder.is_dir() for folder in (base_dir, *pack_dirs)):
        raise ValueError
    beside = [p["manifest"] for p in packs.values() if p["base"] == chosen["name"]]
    table = router_file(home, _digest(chosen["fingerprint"]), beside)
    return Place(chosen["name"], base_dir, pack_dirs, table)


def _digest(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError
    return text
