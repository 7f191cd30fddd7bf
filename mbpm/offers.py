"""What is on offer: versions of packs and bases, and where their bytes come from."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from specs.blobs import FileSource
from specs.described import Described, Relations
from specs.errors import IntegrityError, NotFoundError
from specs.index_line import IndexLine
from specs.versions import Version, version

if TYPE_CHECKING:
    from mbpm.fetch import AnySource
    from mbpm.registries.source import Source
    from registry_index.archive import Archive
    from specs.base_card import BaseBlob, BaseCard
    from specs.blobs import Blob
    from specs.manifest import Manifest


class Origin(Protocol):
    """Where the bytes of a pack come from."""

    @property
    def label(self) -> str:
        """What `InstalledPack.registry` records."""

    def manifest(self, line: IndexLine) -> Manifest:
        """The manifest an index line names, its digest checked."""

    def document(self, blob: Blob) -> bytes:
        """The bytes of a small file of a pack, their digest checked."""

    def sources(self, blob: Blob, scratch: Path) -> list[AnySource]:
        """Where the bytes of a blob may be had, in the order to try.

        Args:
            blob: The blob.
            scratch: A folder to unpack into, made where it is missing.
        """


class UnknownPackError(NotFoundError):
    """No registry has a pack of this name. What was meant is only looked for if somebody asks:
    choosing versions meets many such names, of virtual packs, and tells of none."""

    def __init__(self, message: str, alike: Callable[[], str]) -> None:
        super().__init__(message)
        self._alike = alike

    @property
    def hint(self) -> str | None:
        """The pack that was probably meant."""
        return self._alike()

    @hint.setter
    def hint(self, value: str | None) -> None:
        """Nobody else knows better."""


@dataclass(frozen=True)
class Candidate:
    """One version of a pack that could be installed, or is (then without an origin)."""

    line: IndexLine
    origin: Origin | None

    @cached_property
    def version(self) -> Version:
        """The version, comparable."""
        return version(self.line.version)

    def manifest(self) -> Manifest:
        """The manifest; raises IntegrityError where it is not what the line says."""
        assert self.origin is not None
        manifest = self.origin.manifest(self.line)
        if (field := self.line.disagreement(manifest)) is not None:
            raise IntegrityError(
                f"{self.origin.label}: `{field}` of {self.line.name} {self.line.version} in the "
                "index is not what its manifest says"
            )
        return manifest


@dataclass(frozen=True)
class BaseOffer:
    """A base card and the registry it stands in."""

    card: BaseCard
    label: str
    """What `InstalledBase.registry` records."""
    folder: Path
    """What relative paths of file sources are relative to."""
    find: Callable[[BaseBlob], list[AnySource]]

    def sources(self, file: BaseBlob) -> list[AnySource]:
        """Where the bytes of a file may be had, in the order to try."""
        return self.find(file)


@dataclass(frozen=True)
class FolderOrigin:
    """An author's pack folder."""

    folder: Path
    content: Manifest
    files: Mapping[str, Path]

    @property
    def label(self) -> str:
        """`folder` and its path."""
        return f"folder {self.folder.absolute()}"

    def manifest(self, line: IndexLine) -> Manifest:
        """Made when the folder was read."""
        return self.content

    def document(self, blob: Blob) -> bytes:
        """The file's bytes; IntegrityError where it changed since the folder was read."""
        return _checked(self.files[blob.path].read_bytes(), blob, self.label)

    def sources(self, blob: Blob, scratch: Path) -> list[AnySource]:
        """The file in the folder."""
        return [FileSource(path=str(self.files[blob.path].absolute()))]


@dataclass(frozen=True)
class ArchiveOrigin:
    """A `.mbpack` file."""

    archive: Archive

    @property
    def label(self) -> str:
        """`archive` and its path."""
        return f"archive {self.archive.file.absolute()}"

    def manifest(self, line: IndexLine) -> Manifest:
        """The archive's own."""
        return self.archive.manifest

    def document(self, blob: Blob) -> bytes:
        """The member's bytes."""
        with tempfile.TemporaryDirectory() as folder:
            self.archive.extract(Path(folder))
            return _checked((Path(folder) / blob.path).read_bytes(), blob, self.label)

    def sources(self, blob: Blob, scratch: Path) -> list[AnySource]:
        """The member, unpacked once."""
        folder = scratch / self.archive.manifest.digest()
        if not folder.is_dir():
            folder.mkdir(parents=True)
            self.archive.extract(folder)
        return [FileSource(path=str(folder / blob.path))]


def _checked(raw: bytes, blob: Blob, label: str) -> bytes:
    if hashlib.sha256(raw).hexdigest() != blob.sha256:
        raise IntegrityError(f"{label}: {blob.path} is not what the manifest says")
    return raw


def line_of(manifest: Manifest) -> IndexLine:
    """What an index would say of a manifest that comes from no index."""
    raw = manifest.canonical()
    fields = (*Described.model_fields, *Relations.model_fields)
    said = {name: getattr(manifest, name) for name in fields}
    return IndexLine(
        base=manifest.base,
        manifest=hashlib.sha256(raw).hexdigest(),
        manifest_size=len(raw),
        size=manifest.size,
        published=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **said,
    )


def read_local(path: Path) -> Candidate:
    """The pack in a folder or an archive.

    Raises:
        NotFoundError: there is nothing there.
        IntegrityError: it is not a sound pack.
        UsageError: its path cannot be written down.
    """
    from mbpm.files import recordable

    recordable(path.absolute())
    if path.is_dir():
        from registry_index.packing import build_manifest

        manifest, files = build_manifest(path)
        return Candidate(line_of(manifest), FolderOrigin(path, manifest, files))
    from registry_index.archive import read_archive

    archive = read_archive(path)
    return Candidate(line_of(archive.manifest), ArchiveOrigin(archive))


def read_local_base(folder: Path) -> BaseOffer:
    """The base in a folder, as `mbpm train --base` makes it.

    Raises:
        NotFoundError: there is none.
        IntegrityError: its card is malformed, or a file is not what the card says.
    """
    from mbpm.files import recordable
    from registry_index.contents import check_blob
    from specs.base_card import CARD_FILE, BaseCard

    recordable(folder.absolute())
    file = folder / CARD_FILE
    if not file.is_file():
        raise NotFoundError(
            f"{folder} is no base folder: it has no {CARD_FILE}",
            hint="make one with `mbpm train --base FILE.toml --data FOLDER`",
        )
    card = BaseCard.read(file)
    for part in card.files:
        place = folder / part.blob.path
        if not place.is_file():
            raise NotFoundError(f"{folder}: `{part.blob.path}` is missing")
        check_blob(part.blob, place)

    def find(part: BaseBlob) -> list[AnySource]:
        return [FileSource(path=str((folder / part.blob.path).absolute()))]

    return BaseOffer(card, f"folder {folder.absolute()}", folder, find)


def offered(source: Source, name: str) -> list[Candidate] | None:
    """The versions a registry has of a pack; None where it has no such pack."""
    try:
        lines = source.lines(name)
    except NotFoundError:
        # a registry that is not there at all must not pass for one without the pack
        source.check()
        return None
    if not lines:
        raise NotFoundError(
            f"every version of `{name}` in {source.label} needs a newer mbpm",
            hint="upgrade mbpm: `pip install --upgrade mbpm`",
        )
    return [Candidate(line, source) for line in lines]
