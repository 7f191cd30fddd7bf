"""A registry as a tree of static files: a plain folder or what a web server hands out.

    config.json           {"format": 1, "name": NAME}
    index/ab/cd/abcdef    one JSON line per version of the pack `abcdef`, oldest first
    blobs/ab/abcdef…      files by SHA-256; a pack's manifest.json is one of them
    bases/NAME.json       base cards
    summary/              one line per pack, in pages (registry_index/summary.py)

Every path is built from a checked name or digest, so none can lead out of the tree. Reading is
lazy and takes no lock: a publisher replaces an index file whole.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from specs.errors import IntegrityError, MbpmError, NotFoundError, UsageError
from specs.index_line import IndexLine, RegistryConfig
from specs.model import MAX_DOCUMENT_BYTES, check_format, describe, load_json
from specs.names import check_name
from specs.summary import MAX_INDEX_BYTES
from specs.versions import Version

if TYPE_CHECKING:
    from specs.base_card import BaseCard

CONFIG_FILE = "config.json"
INDEX_DIR = "index"
BLOBS_DIR = "blobs"
BASES_DIR = "bases"

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PackIndex:
    """What one index file says."""

    lines: tuple[IndexLine, ...]
    """Oldest first."""
    newer: tuple[str, ...]
    """Versions whose line has a newer format: they need a newer mbpm."""


def index_path(name: str) -> Path:
    """Where the index file of the pack `name` lies below `index/`; cargo's layout.

    Raises:
        ValueError: the name is not a pack's.
    """
    check_name(name)
    if len(name) <= 2:
        return Path(str(len(name)), name)
    if len(name) == 3:
        return Path("3", name[0], name)
    return Path(name[:2], name[2:4], name)


def blob_path(sha256: str) -> Path:
    """Where the blob with this digest lies below the registry's root.

    Raises:
        ValueError: not a SHA-256 in lower-case hexadecimal.
    """
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is not a SHA-256 digest")
    return Path(BLOBS_DIR, sha256[:2], sha256)


def split_lines(raw: bytes) -> list[bytes]:
    """The lines of a file of JSON lines, without their ends; the last one may lack it."""
    return raw.removesuffix(b"\n").split(b"\n") if raw else []


def parse_index(raw: bytes, name: str, where: str) -> PackIndex:
    """Read an index file.

    Args:
        raw: JSON lines.
        name: the pack every line must be about.
        where: what to call the file in an error.

    Raises:
        IntegrityError: naming the line: not JSON, not an index line, another pack's, or a version
            that stands twice (build metadata does not tell two versions apart).
    """
    lines: list[IndexLine] = []
    newer: list[str] = []
    seen: set[Version] = set()
    for number, text in enumerate(split_lines(raw), 1):
        line_where = f"{where}, line {number}"
        value = load_json(text, line_where)
        try:
            check_format(value, IndexLine, line_where)
        except IntegrityError:
            raise
        except MbpmError:
            version = value.get("version") if isinstance(value, dict) else None
            newer.append(version if isinstance(version, str) else "?")
            continue
        line = _line(text, line_where)
        if line.name != name:
            raise IntegrityError(f"{line_where}: is about `{line.name}`, not `{name}`")
        version = Version(line.version)
        if version in seen:
            raise IntegrityError(f"{line_where}: version {line.version} stands twice")
        seen.add(version)
        lines.append(line)
    return PackIndex(tuple(lines), tuple(newer))


def _line(text: bytes, where: str) -> IndexLine:
    """One line that is JSON without double keys; raises IntegrityError."""
    try:
        return IndexLine.model_validate_json(text)
    except ValidationError as error:
        raise IntegrityError(f"{where}: {describe(error)}") from None


class Registry:
    """A registry in a directory. Nothing is read before it is asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def name(self) -> str:
        """The registry's own name.

        Raises:
            NotFoundError: the directory is not a registry.
            IntegrityError: its config.json is malformed.
        """
        file = self.root / CONFIG_FILE
        try:
            raw = read_file(file, MAX_DOCUMENT_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(
                f"no registry at {self.root}: it has no {CONFIG_FILE}",
                hint="`mbpm publish FOLDER --registry DIRECTORY` makes one",
            ) from None
        return RegistryConfig.parse(raw, str(file)).name

    def names(self) -> list[str]:
        """The names of all packs, sorted."""
        _ = self.name
        found = []
        for folder, _folders, files in os.walk(self.root / INDEX_DIR):
            for name in files:
                try:
                    path = index_path(name)
                except ValueError:
                    continue
                if Path(folder, name) == self.root / INDEX_DIR / path:
                    found.append(name)
        return sorted(found)

    def index(self, name: str) -> PackIndex:
        """What the registry knows of the pack `name`.

        Raises:
            UsageError: not a pack's name.
            NotFoundError: no such pack.
            IntegrityError: a malformed line, with the file and its number.
        """
        return self.parse(self.raw_index(name), name)

    def parse(self, raw: bytes, name: str) -> PackIndex:
        """Read the bytes of a pack's index file; raises IntegrityError as `index` does."""
        return parse_index(raw, name, str(self.root / INDEX_DIR / index_path(name)))

    def raw_index(self, name: str) -> bytes:
        """The bytes of a pack's index file; raises UsageError and NotFoundError as `index`."""
        _ = self.name
        try:
            file = self.root / INDEX_DIR / index_path(name)
        except ValueError as error:
            raise UsageError(str(error)) from None
        try:
            return read_file(file, MAX_INDEX_BYTES)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFoundError(
                f"no pack `{name}` in the registry `{self.name}`",
                hint="`mbpm search` lists the packs there are",
            ) from None

    def lines(self, name: str) -> list[IndexLine]:
        """The versions of `name` that this mbpm can read, oldest first; raises as `index` does.

        Empty where every version needs a newer mbpm: `index(name).newer` names those.
        """
        return list(self.index(name).lines)

    def blob_path(self, sha256: str) -> Path:
        """Where the blob with this digest lies; whether it is there is the reader's question."""
        return self.root / blob_path(sha256)

    def bases(self) -> list[BaseCard]:
        """All base cards this mbpm can read, by name; cards of a newer format are left out.

        Raises:
            IntegrityError: a malformed card.
        """
        cards = []
        for name in self.base_names():
            try:
                cards.append(self._card(self.root / BASES_DIR / f"{name}.json"))
            except IntegrityError:
                raise
            except MbpmError:
                continue
        return cards

    def base_names(self) -> list[str]:
        """The names of all base cards, sorted."""
        _ = self.name
        try:
            entries = sorted((self.root / BASES_DIR).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [
            file.stem
            for file in entries
            if file.suffix == ".json" and not file.name.startswith(".")
        ]

    def base(self, name: str) -> BaseCard:
        """The card of the base `name`.

        Raises:
            UsageError: not a base's name.
            NotFoundError: no such base.
            IntegrityError: a malformed card; MbpmError for one of a newer format.
        """
        _ = self.name
        try:
            check_name(name)
        except ValueError as error:
            raise UsageError(str(error)) from None
        file = self.root / BASES_DIR / f"{name}.json"
        try:
            return self._card(file)
        except FileNotFoundError:
            raise NotFoundError(
                f"no base `{name}` in the registry `{self.name}`",
                hint="`mbpm base list` shows the bases there are",
            ) from None

    def _card(self, file: Path) -> BaseCard:
        from specs.base_card import BaseCard

        card = BaseCard.parse(read_file(file, MAX_DOCUMENT_BYTES), str(file))
        if card.name != file.stem:
            raise IntegrityError(f"{file}: is the card of `{card.name}`")
        return card


def read_file(file: Path, limit: int) -> bytes:
    """The bytes of a file, if they are no more than `limit`.

    Raises:
        IntegrityError: there are more; OSError as opening it.
    """
    with file.open("rb") as stream:
        raw = stream.read(limit + 1)
    if len(raw) > limit:
        raise IntegrityError(f"{file}: is larger than the {limit:,} bytes accepted")
    return raw
