"""Names for the shell's completion: from what is on this machine, and fast.

It asks no server, validates no more than it needs, and finds nothing rather than fail.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbpm.home import Home

LIMIT = 200
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def installed(home: Home, prefix: str = "") -> list[str]:
    """Installed packs whose names begin so, sorted."""
    return _recorded(home, "packs", prefix)


def _recorded(home: Home, kind: str, prefix: str) -> list[str]:
    try:
        number = int(home.pointer.read_text("ascii"))
        entries = json.loads(home.generation_path(number).read_bytes())[kind]
        names = {str(entry["name"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return sorted(n for n in names if n.startswith(prefix) and _NAME.fullmatch(n))


def bases(home: Home, prefix: str = "") -> list[str]:
    """Installed bases, and those of the bundled registry and of directories that begin so."""
    found = set(_recorded(home, "bases", prefix))
    for root in _folders(home.path):
        names = (n.removesuffix(".json") for n in _names(root / "bases"))
        found.update(n for n in names if n.startswith(prefix) and _NAME.fullmatch(n))
    return sorted(found)


def registries(home: Home, prefix: str = "") -> list[str]:
    """Configured registries whose names begin so."""
    return sorted(n for n in ("bundled", *_configured(home.path)) if n.startswith(prefix))


def profiles(home: Home, prefix: str = "") -> list[str]:
    """The home's profiles whose names begin so."""
    try:
        names = home.profiles()
    except OSError:
        return []
    return [n for n in names if n.startswith(prefix) and _NAME.fullmatch(n)]


def available(home: Home, prefix: str = "", limit: int = LIMIT) -> list[str]:
    """Installed packs, and those that registries were seen to offer, whose names begin so."""
    found = set(installed(home, prefix))
    for file in _caches(home.path):
        found.update(_cached(file, prefix, limit))
    for root in _folders(home.path):
        found.update(islice(_listed(root / "index", prefix), limit))
    return sorted(found)[:limit]


def _caches(home: Path) -> list[Path]:
    try:
        return sorted((home / "cache" / "registries").glob("*/index.sqlite"))
    except OSError:
        return []


def _cached(file: Path, prefix: str, limit: int) -> list[str]:
    import sqlite3

    ask = "SELECT name FROM packs WHERE NOT yanked AND name >= ? AND name < ? ORDER BY name LIMIT ?"
    try:
        # a cache that a refresh is writing is left alone
        connection = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=0.1)
        try:
            rows = connection.execute(ask, (prefix, prefix + "\x7f", limit)).fetchall()
        finally:
            connection.close()
    except sqlite3.Error:
        return []
    return [name for (name,) in rows if isinstance(name, str) and _NAME.fullmatch(name)]


def _folders(home: Path) -> list[Path]:
    """The bundled registry and configured directories."""
    # found, not imported: that would take longer than all the rest
    spec = find_spec("registry_index")
    roots = [Path(spec.origin).parent / "bundled"] if spec and spec.origin else []
    return roots + [Path(a) for a in _configured(home).values() if "://" not in a]


def _configured(home: Path) -> dict[str, str]:
    """Name -> address of configured registries."""
    try:
        text = (home / "registries.toml").read_text("utf-8")
    except (OSError, ValueError):
        return {}
    import tomli

    try:
        entries = tomli.loads(text)["registries"]
        return {n: str(e["address"]) for n, e in entries.items() if _NAME.fullmatch(n)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _listed(index: Path, prefix: str) -> Iterator[str]:
    """Names in a registry's index folder; only the parts of it that can hold them are looked at."""
    if len(prefix) < 4:
        for folder in ("1", "2", *(f"3/{name}" for name in _names(index / "3"))):
            yield from _files(index / folder, prefix)
    for first in _names(index):
        if len(first) == 2 and first.startswith(prefix[:2]):
            for second in _names(index / first):
                if second.startswith(prefix[2:4]):
                    yield from _files(index / first / second, prefix)


def _files(folder: Path, prefix: str) -> Iterator[str]:
    return (n for n in _names(folder) if n.startswith(prefix) and _NAME.fullmatch(n))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
