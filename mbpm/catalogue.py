"""What can be installed: packs and bases of registries, folders and archives."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from registry_index import bundled
from registry_index.tree import Registry
from specs.base_card import BaseCard
from specs.blobs import Blob, FileSource
from specs.described import Relations
from specs.errors import IntegrityError, NotFoundError, UsageError
from specs.index_line import IndexLine
from specs.manifest import Manifest
from specs.model import MAX_DOCUMENT_BYTES
from specs.pack_toml import PACK_TOML
from specs.versions import Version

if TYPE_CHECKING:
    from registry_index.archive import Archive


class Origin(Protocol):
    """Where the bytes of a pack come from."""

    @property
    def label(self) -> str:
        """What `InstalledPack.registry` records."""

    def manifest(self, line: IndexLine) -> Manifest:
        """The manifest an index line names, its digest checked."""

    def source(self, blob: Blob, scratch: Path) -> FileSource:
        """A file with the bytes of a blob; `scratch` is an existing folder to unpack into."""


@dataclass(frozen=True)
class Candidate:
    """One version of a pack that could be installed, or is (then without an origin)."""

    line: IndexLine
    origin: Origin | None

    @cached_property
    def version(self) -> Version:
        """The version, comparable."""
        return Version(self.line.version)

    def manifest(self) -> Manifest:
        """The manifest; raises IntegrityError where it is not what the line says."""
        assert self.origin is not None
        manifest = self.origin.manifest(self.line)
        line = self.line
        if (manifest.name, manifest.version, manifest.base) != (line.name, line.version, line.base):
            raise IntegrityError(
                f"{self.origin.label}: the manifest of {line.name} {line.version} says "
                f"{manifest.name} {manifest.version} for base {manifest.base.name}"
            )
        return manifest


@dataclass(frozen=True)
class RegistryOrigin:
    """A registry directory."""

    registry: Registry
    trusted: bool

    @property
    def label(self) -> str:
        """The bundled registry by its name, another by its path."""
        return self.registry.name if self.trusted else str(self.registry.root.absolute())

    def manifest(self, line: IndexLine) -> Manifest:
        """Read and check the manifest blob."""
        file = self.registry.blob_path(line.manifest)
        try:
            with file.open("rb") as stream:
                raw = stream.read(MAX_DOCUMENT_BYTES + 1)
        except FileNotFoundError:
            raise NotFoundError(
                f"{file}: the registry lacks the manifest of {line.name} {line.version}"
            ) from None
        if hashlib.sha256(raw).hexdigest() != line.manifest:
            raise IntegrityError(f"{file}: its bytes do not match the digest in the index")
        return Manifest.parse(raw, str(file))

    def source(self, blob: Blob, scratch: Path) -> FileSource:
        """The registry's own copy."""
        return FileSource(path=str(self.registry.blob_path(blob.sha256).absolute()))


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

    def source(self, blob: Blob, scratch: Path) -> FileSource:
        """The file in the folder."""
        return FileSource(path=str(self.files[blob.path].absolute()))


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

    def source(self, blob: Blob, scratch: Path) -> FileSource:
        """The member, unpacked once."""
        folder = scratch / self.archive.manifest.digest()
        if not folder.is_dir():
            folder.mkdir(parents=True)
            self.archive.extract(folder)
        return FileSource(path=str(folder / blob.path))


def line_of(manifest: Manifest) -> IndexLine:
    """What an index would say of a manifest that comes from no index."""
    raw = manifest.canonical()
    relations = {name: getattr(manifest, name) for name in Relations.model_fields}
    return IndexLine(
        name=manifest.name,
        version=manifest.version,
        domain=manifest.domain,
        description=manifest.description,
        license=manifest.license,
        base=manifest.base,
        manifest=hashlib.sha256(raw).hexdigest(),
        manifest_size=len(raw),
        size=manifest.size,
        published=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **relations,
    )


def read_local(path: Path) -> Candidate:
    """The pack in a folder or an archive.

    Raises:
        NotFoundError: there is nothing there.
        IntegrityError: it is not a sound pack.
    """
    if path.is_dir():
        from registry_index.packing import build_manifest

        manifest, files = build_manifest(path)
        return Candidate(line_of(manifest), FolderOrigin(path, manifest, files))
    from registry_index.archive import read_archive

    archive = read_archive(path)
    return Candidate(line_of(archive.manifest), ArchiveOrigin(archive))


@dataclass(frozen=True)
class BaseOffer:
    """A base card and the registry it stands in."""

    card: BaseCard
    registry: Registry

    @property
    def folder(self) -> Path:
        """What relative paths of the card's file sources are relative to."""
        return (self.registry.root / "bases").absolute()


class Catalogue:
    """The registries of one command. The first one that knows a pack's name decides about it, so
    that no other registry can slip in a newer version of somebody else's pack."""

    def __init__(self, registries: Iterable[Path] = ()) -> None:
        self._origins = [RegistryOrigin(Registry(root), trusted=False) for root in registries]
        self._origins.append(RegistryOrigin(bundled(), trusted=True))

    def names(self) -> list[str]:
        """All pack names, sorted."""
        return sorted({name for o in self._origins for name in o.registry.names()})

    def candidates(self, name: str) -> list[Candidate]:
        """The versions of a pack, oldest first; yanked ones too.

        Raises:
            NotFoundError: no registry knows it; the hint names one that sounds alike.
            UsageError: not a pack's name.
        """
        for origin in self._origins:
            try:
                lines = origin.registry.lines(name)
            except NotFoundError:
                # a registry that is not there at all must not pass for one without the pack
                _ = origin.registry.name
                continue
            return [Candidate(line, origin) for line in lines]
        raise NotFoundError(f"no pack `{name}` in {self.describe()}", hint=self._alike(name))

    def _alike(self, name: str) -> str:
        if (Path(name) / PACK_TOML).is_file():
            return f"`mbpm install ./{name}` installs the folder"
        close = difflib.get_close_matches(name, self.names(), n=1)
        if close:
            return f"did you mean `{close[0]}`?"
        return "`mbpm search` lists the packs there are"

    def describe(self) -> str:
        """The registries, for messages."""
        labels = [f"`{o.label}`" for o in self._origins]
        return ("the registry " if len(labels) == 1 else "the registries ") + ", ".join(labels)

    def bases(self) -> list[BaseOffer]:
        """All bases, the bundled registry's first: what it says of a base is trusted."""
        offers: dict[str, BaseOffer] = {}
        for origin in reversed(self._origins):
            for card in origin.registry.bases():
                offers.setdefault(card.name, BaseOffer(card, origin.registry))
        return list(offers.values())

    def base(self, name: str) -> BaseOffer:
        """The base called `name`.

        Raises:
            NotFoundError: there is none.
        """
        offers = {o.card.name: o for o in self.bases()}
        if name in offers:
            return offers[name]
        close = difflib.get_close_matches(name, offers, n=1)
        hint = f"did you mean `{close[0]}`?" if close else "`mbpm base list` shows the bases"
        raise NotFoundError(f"no base `{name}` in {self.describe()}", hint=hint)


def registry_roots(directories: Iterable[str] | None) -> list[Path]:
    """The directories given as `--registry`.

    Raises:
        UsageError: one of them is an address.
    """
    roots = []
    for text in directories or ():
        if "://" in text:
            raise UsageError(
                f"`{text}` is an address, and a registry here is a directory",
                hint="name a directory, such as a checkout or a mounted share",
            )
        roots.append(Path(text).expanduser())
    return roots
