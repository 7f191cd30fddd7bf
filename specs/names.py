"""Pack and base names, and digests as text.

The rules follow cargo's list of reserved names: lower-case ASCII, at most 64 characters, nothing a
file system treats specially, so that a name is also a safe file name everywhere.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_WINDOWS_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))]
)
NAME_RULE = (
    "1 to 64 of a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit, "
    "without '..'"
)


@lru_cache(maxsize=16384)
def check_name(name: str) -> str:
    """Return `name` if it is a valid pack or base name.

    Raises:
        ValueError: with the rule, when it is not.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"{name!r} is not a valid name (expected {NAME_RULE})")
    if name.split(".")[0] in _WINDOWS_DEVICES:
        raise ValueError(f"{name!r} is reserved by Windows and cannot name a pack")
    if name in ("auto", "none", "base"):
        raise ValueError(f"{name!r} is a word of the command line and cannot name a pack")
    return name


def check_file_name(name: str) -> str:
    """Return `name` if it is a plain file name of a pack (no folders, nothing hidden).

    Raises:
        ValueError: when it is not.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or ".." in name:
        raise ValueError(f"{name!r} is not a plain file name")
    return name


HARDWARE = ("__ram", "__vram", "__cc")
"""Names that stand for what a machine has, conda's virtual packages (docs/formats/pack-toml.md)."""


def check_requirable(name: str) -> str:
    """Return `name` if a pack can require it: another pack, or one of `HARDWARE`.

    Raises:
        ValueError: with the rule, when it is neither.
    """
    if name.startswith("__"):
        if name not in HARDWARE:
            raise ValueError(
                f"{name!r} is no property of a machine (expected {', '.join(HARDWARE)})"
            )
        return name
    return check_name(name)


Name = Annotated[str, AfterValidator(check_name)]
Requirable = Annotated[str, AfterValidator(check_requirable)]
FileName = Annotated[str, AfterValidator(check_file_name)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest in lower-case hexadecimal."""
