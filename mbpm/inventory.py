"""What is installed and whether it is whole: one function behind list, verify and install."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from mbpm.store import Store
from specs.blobs import CHUNK_BYTES, Blob


def lacks_files(folder: Path, blobs: Iterable[Blob]) -> bool:
    """Whether a file of a pack's or base's folder is missing or has another size."""

    def size(path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return -1

    return any(size(folder / b.path) != b.size for b in blobs)


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
