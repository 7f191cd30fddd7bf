"""The store: blobs by digest, and the pack and base folders linked out of them.

    store/blobs/sha256/ab/abcdef…    one file per digest, read-only
    store/packs/<manifest digest>/   manifest.json and the pack's files
    store/bases/<card digest>/       card.json and the base's files
    store/parts/                     unfinished downloads

A blob enters by a rename after its digest was checked, a folder by a rename once it is complete:
what has a final name is whole.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.files import link_or_copy, make_read_only, remove, replace, sync_folder, write_atomic
from specs.errors import IntegrityError, disk_full
from specs.file_names import CARD_FILE, MANIFEST_FILE

if TYPE_CHECKING:
    from specs.base_card import BaseCard
    from specs.blobs import Blob
    from specs.manifest import Manifest


class Store:
    """The files of one home."""

    def __init__(self, root: Path, staging: Path) -> None:
        self.root = root
        self.staging = staging

    @property
    def parts(self) -> Path:
        """Where unfinished downloads live."""
        return self.root / "parts"

    def blob_path(self, sha256: str) -> Path:
        """Where the blob with this digest is, or would be."""
        return self.root / "blobs" / "sha256" / sha256[:2] / sha256

    def pack_path(self, manifest: str) -> Path:
        """Where the folder of the pack with this manifest digest is, or would be."""
        return self.root / "packs" / manifest

    def base_path(self, card: str) -> Path:
        """Where the folder of the base with this card digest is, or would be."""
        return self.root / "bases" / card

    def has(self, blob: Blob) -> bool:
        """Whether the blob is here; its bytes were checked when it came."""
        try:
            return self.blob_path(blob.sha256).stat().st_size == blob.size
        except OSError:
            return False

    def adopt(self, file: Path, sha256: str) -> None:
        """Move a file whose digest was checked in as a blob."""
        target = self.blob_path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        make_read_only(file)
        replace(file, target)

    def add_bytes(self, data: bytes) -> str:
        """Store a small document and return its digest."""
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.blob_path(sha256)
        if not target.is_file() or target.read_bytes() != data:
            write_atomic(target, data)
            make_read_only(target)
        return sha256

    def manifest(self, sha256: str) -> Manifest:
        """The manifest with this digest.

        Raises:
            IntegrityError: it is missing or was changed.
        """
        from specs.manifest import Manifest

        return Manifest.parse(self._document(sha256, "manifest"), f"manifest {sha256[:12]}")

    def card(self, sha256: str) -> BaseCard:
        """The base card with this digest; raises as `manifest` does."""
        from specs.base_card import BaseCard

        return BaseCard.parse(self._document(sha256, "base card"), f"base card {sha256[:12]}")

    def _document(self, sha256: str, what: str) -> bytes:
        path = self.blob_path(sha256)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            raise IntegrityError(
                f"{what} {sha256[:12]} is missing from the store",
                hint="`mbpm doctor` tells what is damaged and how to mend it",
            ) from None
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise IntegrityError(
                f"{path}: was changed, its bytes do not match its digest",
                hint="`mbpm doctor` tells what is damaged and how to mend it",
            )
        return raw

    def has_document(self, sha256: str) -> bool:
        """Whether a manifest or card with this digest is here, and is what it was."""
        try:
            self._document(sha256, "document")
        except IntegrityError:
            return False
        return True

    def make_pack(self, manifest: Manifest, *, anew: bool = False) -> Path:
        """Build the folder of a pack whose blobs are all here, unless it is there already.

        With `anew`, what stands in its place is replaced.
        """
        digest = self.add_bytes(manifest.canonical())
        return self._make(self.pack_path(digest), MANIFEST_FILE, digest, manifest.blobs, anew)

    def make_base(self, card: BaseCard, *, anew: bool = False) -> Path:
        """Build the folder of a base; as `make_pack`."""
        digest = self.add_bytes(card.canonical())
        files = [f.blob for f in card.files]
        return self._make(self.base_path(digest), CARD_FILE, digest, files, anew)

    def _make(
        self, target: Path, document: str, digest: str, blobs: Iterable[Blob], anew: bool
    ) -> Path:
        if target.is_dir() and not anew:
            return target
        folder = self.staging / uuid.uuid4().hex
        folder.mkdir(parents=True)
        link_or_copy(self.blob_path(digest), folder / document)
        for blob in blobs:
            link_or_copy(self.blob_path(blob.sha256), folder / blob.path)
        sync_folder(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._take_away(target)
        replace(folder, target)
        return target

    def drop(self, kind: str, digest: str) -> None:
        """Remove a pack's or base's folder, or a blob, by digest."""
        paths = {"pack": self.pack_path, "base": self.base_path, "blob": self.blob_path}
        path = paths[kind](digest)
        if kind == "blob":
            remove(path)
        else:
            # under its final name a folder is whole or not there, whenever this is killed; where
            # the disk is too full even for that, what is left of it is made anew before it is used
            try:
                path = self._take_away(path)
            except OSError as error:
                if not disk_full(error):
                    raise
            remove(path)

    def _take_away(self, path: Path) -> Path:
        """Move what is at `path`, if anything, to the staging area."""
        away = self.staging / uuid.uuid4().hex
        self.staging.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.rename(away)
        return away
