"""What is installed and whether it is whole: one function behind list, verify and install."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from mbpm.store import Store
from specs.base_card import CARD_FILE, BaseCard
from specs.blobs import CHUNK_BYTES, Blob
from specs.manifest import MANIFEST_FILE, Manifest


def whole_pack(store: Store, manifest: Manifest) -> bool:
    """Whether the pack's folder is there: its manifest right, every file with its size."""
    raw = manifest.canonical()
    return _whole(store, store.pack_path(manifest.digest()), MANIFEST_FILE, raw, manifest.blobs)


def whole_base(store: Store, card: BaseCard) -> bool:
    """Whether the base's folder is there: its card right, every file with its size."""
    blobs = [f.blob for f in card.files]
    return _whole(store, store.base_path(card.digest()), CARD_FILE, card.canonical(), blobs)


def _whole(store: Store, folder: Path, document: str, raw: bytes, blobs: Iterable[Blob]) -> bool:
    stored = store.blob_path(hashlib.sha256(raw).hexdigest())
    try:
        sizes = all((folder / b.path).stat().st_size == b.size for b in blobs)
        return sizes and (folder / document).read_bytes() == raw == stored.read_bytes()
    except OSError:
        return False


def wrong_chunk(file: Path, blob: Blob) -> str | None:
    """What is wrong with a file's bytes, in words; None where they are the blob's."""
    try:
        with file.open("rb") as stream:
            whole, size = hashlib.sha256(), 0
            for index, expected in enumerate(blob.chunks):
                chunk = stream.read(CHUNK_BYTES)
                size += len(chunk)
                whole.update(chunk)
                if hashlib.sha256(chunk).hexdigest() != expected:
                    short = size < min(blob.size, (index + 1) * CHUNK_BYTES)
                    return "is truncated" if short else f"chunk {index} has the wrong digest"
            if stream.read(1):
                return f"has more than its {blob.size:,} bytes"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({(error.strerror or str(error)).lower()})"
    return None if whole.hexdigest() == blob.sha256 else "has the wrong digest"


def damaged_blobs(store: Store, folder: Path, blobs: Iterable[Blob]) -> frozenset[str]:
    """Digests of the blobs whose bytes in the store or in the folder are wrong or gone."""
    return frozenset(
        b.sha256
        for b in blobs
        if wrong_chunk(store.blob_path(b.sha256), b) or wrong_chunk(folder / b.path, b)
    )
