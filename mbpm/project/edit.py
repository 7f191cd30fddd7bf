"""Changing mbpm.toml as a person would: what is not concerned keeps its bytes, comments and all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from specs.errors import IntegrityError, UsageError
from specs.project import PROJECT_FILE, Project, WantedPack

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

NEW = """\
# The packs of this project: `mbpm add NAME` adds one, `mbpm sync` installs them.
format = 1

[project]
name = "{name}"
{more}
[packs]
"""


def new_file(name: str, *, profile: str | None = None, base: str | None = None) -> bytes:
    """The mbpm.toml of a project without packs; all of it are checked names."""
    more = "".join(
        f'{key} = "{value}"\n' for key, value in (("profile", profile), ("base", base)) if value
    )
    return NEW.format(name=name, more=more).encode()


def changed(
    raw: bytes, put: Mapping[str, WantedPack] | None = None, drop: Iterable[str] = ()
) -> tuple[bytes, Project]:
    """Another mbpm.toml.

    Args:
        raw: Its bytes, known to be a project.
        put: Packs to add or to want otherwise.
        drop: Packs to take out.

    Returns:
        The new bytes, and what they say.

    Raises:
        UsageError: it is written in a way that cannot be changed here.
    """
    before = Project.parse_toml(raw, PROJECT_FILE)
    packs = {n: w for n, w in {**before.packs, **(put or {})}.items() if n not in set(drop)}
    wanted = before.model_copy(update={"packs": packs})
    made = _edited(raw, put or {}, drop)
    if made is None or _read(made) != wanted:
        raise UsageError(
            f"{PROJECT_FILE}: is written in a way that mbpm cannot change; nothing was changed",
            hint="change `[packs]` by hand, then run `mbpm sync`",
        )
    return made, wanted


def _read(raw: bytes) -> Project | None:
    try:
        return Project.parse_toml(raw, PROJECT_FILE)
    except IntegrityError:
        return None


def _edited(raw: bytes, put: Mapping[str, WantedPack], drop: Iterable[str]) -> bytes | None:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    text = raw.decode("utf-8")
    windows = "\r\n" in text
    try:
        document = tomlkit.parse(text.replace("\r\n", "\n"))
        for name, wanted in put.items():
            _put(document, name, wanted)
        packs: Any = document.get("packs", {})
        for name in drop:
            del packs[name]
        text = tomlkit.dumps(document)
    except TOMLKitError:
        return None
    return (text.replace("\n", "\r\n") if windows else text).encode()


def _put(document: TOMLDocument, name: str, wanted: WantedPack) -> None:
    import tomlkit

    if "packs" not in document:
        document["packs"] = tomlkit.table()
    packs: Any = document["packs"]
    old = packs.get(name)
    if isinstance(old, dict):
        # a table somebody wrote stays one, in its form
        old["version"] = wanted.version
        if wanted.registry is not None:
            old["registry"] = wanted.registry
    elif wanted.registry is None:
        packs[name] = wanted.version
    else:
        quoted = tomlkit.string(wanted.registry).as_string()
        version = tomlkit.string(wanted.version).as_string()
        packs[name] = tomlkit.value(f"{{ version = {version}, registry = {quoted} }}")
