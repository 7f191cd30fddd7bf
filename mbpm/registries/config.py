"""The list of registries: `registries.toml` in the home.

    format = 1

    [bundled]
    priority = 100

    [registries.team]
    address = "https://packs.example.org/team"
    priority = 50

It may be edited by hand. The bundled registry is always there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbpm.files import recordable, write_atomic
from specs.errors import IntegrityError, MbpmError, NotFoundError, UsageError
from specs.names import check_name
from specs.registries import (
    BUNDLED,
    DEFAULT_PRIORITY,
    BundledEntry,
    Entry,
    RegistryList,
    is_url,
    normal_url,
)

REGISTRIES_FILE = "registries.toml"


@dataclass(frozen=True)
class Known:
    """A registry of the list."""

    name: str
    address: str
    """`bundled`, a directory, or a normal http(s) address: also its label."""
    priority: int
    mirrors: tuple[str, ...] = ()
    keyring: bool = False

    @property
    def remote(self) -> bool:
        """Whether it is asked over the network."""
        return is_url(self.address)


def read(home: Path) -> RegistryList:
    """The list; empty where none was ever written.

    Raises:
        UsageError: the file is not what is expected; it names the field.
    """
    file = home / REGISTRIES_FILE
    try:
        found = RegistryList.read_toml(file)
    except (FileNotFoundError, NotADirectoryError):
        return RegistryList()
    except IntegrityError as error:
        raise UsageError(error.message, hint=error.hint) from None
    _check_distinct(found, file)
    return found


def _check_distinct(found: RegistryList, file: Path) -> None:
    seen: dict[str, str] = {}
    for name, entry in found.registries.items():
        if name == BUNDLED:
            raise UsageError(
                f"{file}: `registries.{BUNDLED}` has the name of the registry that ships with mbpm",
                hint="give it another name; `[bundled]` sets the bundled registry's priority",
            )
        if entry.address in seen:
            raise UsageError(
                f"{file}: `{seen[entry.address]}` and `{name}` have the same address",
                hint="remove one of them",
            )
        seen[entry.address] = name


def display_names(home: Path, labels: Iterable[str]) -> dict[str, str]:
    """Label of a registry -> the name it is configured under, or else the label itself."""
    wanted = set(labels)
    if wanted <= {BUNDLED}:
        return {label: label for label in wanted}
    known: dict[str, str] = {}
    # what is installed is shown whatever is wrong with the list: who needs it says so
    with suppress(MbpmError, OSError):
        known = {k.address: k.name for k in in_order(read(home))}
    return {label: known.get(label, label) for label in wanted}


def in_order(found: RegistryList) -> list[Known]:
    """All registries, the one with the highest priority first; among equals the bundled one, then
    the one that stands first."""
    known = [Known(BUNDLED, BUNDLED, found.bundled.priority)]
    for name, entry in found.registries.items():
        known.append(Known(name, entry.address, entry.priority, entry.mirrors, entry.keyring))
    return sorted(known, key=lambda k: -k.priority)


def write(home: Path, changed: RegistryList) -> None:
    """Replace the list; to be called with the home's writer lock held."""
    import tomli_w

    value: dict[str, Any] = {"format": 1, "bundled": changed.bundled.model_dump()}
    value["registries"] = {
        n: _short(e.model_dump(mode="json")) for n, e in changed.registries.items()
    }
    write_atomic(home / REGISTRIES_FILE, tomli_w.dumps(value).encode())


def _short(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in entry.items() if v not in ([], False)}


def with_entry(found: RegistryList, name: str, entry: Entry) -> RegistryList:
    """The list with one registry more, or another in its place.

    Raises:
        UsageError: not a name, the bundled one's, or another registry has this address.
    """
    check_registry_name(name)
    for other, there in found.registries.items():
        if other != name and there.address == entry.address:
            raise UsageError(
                f"{entry.address} is configured already, as `{other}`",
                hint=f"`mbpm registry remove {other}` first",
            )
    return found.model_copy(update={"registries": {**found.registries, name: entry}})


def check_registry_name(name: str) -> str:
    """Return a name that a registry may be given; UsageError where it may not."""
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if name == BUNDLED:
        raise UsageError(
            f"`{BUNDLED}` is the registry that ships with mbpm",
            hint="`mbpm registry priority bundled N` sets its priority",
        )
    return name


def without(found: RegistryList, name: str) -> RegistryList:
    """The list without a registry; raises NotFoundError where there is none of that name."""
    _ = entry_of(found, name)
    return found.model_copy(
        update={"registries": {n: e for n, e in found.registries.items() if n != name}}
    )


def entry_of(found: RegistryList, name: str) -> Entry:
    """A configured registry by its name.

    Raises:
        NotFoundError: there is none; the hint names one that sounds alike.
    """
    if name in found.registries:
        return found.registries[name]
    import difflib

    close = difflib.get_close_matches(name, found.registries, n=1)
    hint = f"did you mean `{close[0]}`?" if close else "`mbpm registry list` shows them"
    raise NotFoundError(f"no registry `{name}` is configured", hint=hint)


def with_priority(found: RegistryList, name: str, priority: int) -> RegistryList:
    """The list with another priority for one registry, the bundled one included."""
    if name == BUNDLED:
        return found.model_copy(update={"bundled": BundledEntry(priority=priority)})
    entry = entry_of(found, name).model_copy(update={"priority": priority})
    return with_entry(found, name, entry)


def address_of(text: str) -> str:
    """The normal form of an address or directory as somebody typed it.

    Raises:
        UsageError: it is no address, or one that cannot be written down.
    """
    if not is_url(text):
        return str(recordable(Path(text).expanduser().absolute()))
    try:
        return normal_url(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def named(text: str, configured: Sequence[Known]) -> Known:
    """The registry somebody means on a command line: a name, a directory or an address.

    Raises:
        UsageError: an address that is none.
    """
    for known in configured:
        if known.name == text:
            return known
    address = address_of(text)
    for known in configured:
        if known.address == address:
            return known
    return Known(text, address, DEFAULT_PRIORITY)
