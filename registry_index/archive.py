"""`.mbpack`: one pack in one file, for moving it by hand.

A plain zip (APPNOTE 6.3, without zip64, compression, encryption, data descriptors, extra fields
or comments) of exactly manifest.json and then the manifest's blobs, sorted by name. Any zip program
can list and read one. Our reader walks it from the first byte to the last, and every byte
must be accounted for: there is no room for a second, hidden reading of the same file.
"""

from __future__ import annotations

import os
import stat
import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from specs.blobs import CHUNK_BYTES, Blob
from specs.errors import IntegrityError, NotFoundError, UsageError
from specs.manifest import MANIFEST_FILE, PACK_FILES, Manifest
from specs.model import MAX_DOCUMENT_BYTES

SUFFIX = ".mbpack"
MAX_ARCHIVE_BYTES = (1 << 32) - 1
"""What a zip without zip64 can hold; larger packs travel by registry."""

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_SIGNATURE, _CENTRAL_SIGNATURE, _END_SIGNATURE = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_VERSION = 20
_UNIX = 3 << 8
_FILE_MODE = 0o100644 << 16
_FOLDER_ATTRIBUTE = 0x10
_DATE_1980 = 0x21
_UTF8_FLAG = 0x800


@dataclass(frozen=True)
class _Member:
    name: str
    crc: int
    size: int
    header: int
    """Offset of the local header."""
    data: int
    """Offset of the bytes."""


@dataclass(frozen=True)
class Archive:
    """An archive whose structure and manifest have been checked; its blobs not yet."""

    file: Path
    manifest: Manifest
    members: Mapping[str, _Member]

    def extract(self, folder: Path) -> dict[str, Path]:
        """Write the blobs into an existing folder, under the names the manifest gives.

        Returns:
            File name in the pack -> the file written.

        Raises:
            IntegrityError: bytes that do not match the manifest; what was written is removed.
            FileExistsError: the folder already holds such a file.
        """
        files: dict[str, Path] = {}
        try:
            with self.file.open("rb") as stream:
                for blob in self.manifest.blobs:
                    with (folder / blob.path).open("xb") as out:
                        files[blob.path] = folder / blob.path
                        self._copy(stream, out, blob)
        except BaseException:
            for written in files.values():
                written.unlink(missing_ok=True)
            raise
        return files

    def _copy(self, stream: BinaryIO, out: BinaryIO, blob: Blob) -> None:
        member = self.members[blob.path]
        stream.seek(member.data)
        counted = _Counted(_pieces(stream, blob.size), out)
        if Blob.of_chunks(blob.path, counted) != blob or counted.crc != member.crc:
            raise IntegrityError(
                f"{self.file}: the bytes of `{blob.path}` do not match the manifest"
            )


def archive_name(manifest: Manifest) -> str:
    """`NAME-VERSION.mbpack`."""
    return f"{manifest.name}-{manifest.version}{SUFFIX}"


def write_archive(manifest: Manifest, files: Mapping[str, Path], target: Path) -> None:
    """Write the archive of a pack; the same pack always gives the same bytes.

    Args:
        manifest: The pack.
        files: File name in the pack -> where its bytes are.
        target: The archive; replaced whole, or left as it was when anything fails.

    Raises:
        UsageError: the pack is too large for an archive.
        IntegrityError: a file is no longer what the manifest says.
    """
    raw = manifest.canonical()
    overhead = 300 * (len(manifest.blobs) + 2)
    if len(raw) + manifest.size + overhead > MAX_ARCHIVE_BYTES:
        raise UsageError(
            f"{manifest.name} {manifest.version} is larger than the {MAX_ARCHIVE_BYTES:,} bytes "
            "an archive can hold",
            hint="publish it to a registry instead: `mbpm publish FOLDER --registry DIRECTORY`",
        )
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as out:
            members = [_write_member(out, Blob.of_bytes(MANIFEST_FILE, raw), [raw], target)]
            for blob in sorted(manifest.blobs, key=lambda b: b.path):
                with files[blob.path].open("rb") as stream:
                    pieces = _pieces(stream, blob.size + 1)
                    members.append(_write_member(out, blob, pieces, files[blob.path]))
            start = out.tell()
            out.write(b"".join(_central(m) for m in members))
            count, size = len(members), out.tell() - start
            out.write(_END.pack(_END_SIGNATURE, 0, 0, count, count, size, start, 0))
            out.flush()
            os.fsync(out.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def read_archive(file: Path) -> Archive:
    """Check the structure of an archive and read its manifest; reads no blob.

    Raises:
        NotFoundError: there is no such file.
        IntegrityError: anything but the zip that the module's docstring describes.
    """
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file")
    size = file.stat().st_size
    if size > MAX_ARCHIVE_BYTES:
        _refuse(file, f"is {size:,} bytes long, more than the {MAX_ARCHIVE_BYTES:,} accepted")
    with file.open("rb") as stream:
        members = _read_members(stream, size, file)
        _read_directory(stream, members, file)
        stream.seek(members[0].data)
        raw = stream.read(members[0].size)
    where = f"{file}, {MANIFEST_FILE}"
    manifest = Manifest.parse(raw, where)
    if zlib.crc32(raw) != members[0].crc:
        _refuse(file, f"the checksum of `{MANIFEST_FILE}` is wrong")
    if manifest.canonical() != raw:
        raise IntegrityError(f"{where}: is not canonical JSON")
    by_name = {m.name: m for m in members[1:]}
    for blob in manifest.blobs:
        if blob.path not in by_name:
            _refuse(file, f"`{blob.path}` of its manifest is missing")
        if by_name[blob.path].size != blob.size:
            _refuse(
                file,
                f"member `{blob.path}` has {by_name[blob.path].size:,} bytes, and the manifest "
                f"says {blob.size:,}",
            )
    if extra := sorted(by_name.keys() - {b.path for b in manifest.blobs}):
        _refuse(file, f"member `{extra[0]}` is not in its manifest")
    return Archive(file, manifest, by_name)


class _Counted:
    """Pieces on their way into a file, with their CRC-32."""

    def __init__(self, pieces: Iterable[bytes], out: BinaryIO) -> None:
        self.crc = 0
        self._pieces = pieces
        self._out = out

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.crc = zlib.crc32(piece, self.crc)
            self._out.write(piece)
            yield piece


def _pieces(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """The next `size` bytes, or as many as there are, in pieces of CHUNK_BYTES."""
    while size and (piece := stream.read(min(size, CHUNK_BYTES))):
        size -= len(piece)
        yield piece


def _local(member: _Member) -> bytes:
    return (
        _LOCAL.pack(
            _LOCAL_SIGNATURE,
            *(_VERSION, 0, 0, 0, _DATE_1980),
            *(member.crc, member.size, member.size, len(member.name), 0),
        )
        + member.name.encode()
    )


def _central(member: _Member) -> bytes:
    return (
        _CENTRAL.pack(
            _CENTRAL_SIGNATURE,
            *(_UNIX | _VERSION, _VERSION, 0, 0, 0, _DATE_1980),
            *(member.crc, member.size, member.size, len(member.name), 0, 0, 0, 0),
            *(_FILE_MODE, member.header),
        )
        + member.name.encode()
    )


def _write_member(out: BinaryIO, blob: Blob, pieces: Iterable[bytes], source: Path) -> _Member:
    header = out.tell()
    out.write(b"\0" * (_LOCAL.size + len(blob.path)))
    data = out.tell()
    counted = _Counted(pieces, out)
    if Blob.of_chunks(blob.path, counted) != blob:
        raise IntegrityError(f"{source}: changed while it was packed")
    member = _Member(blob.path, counted.crc, blob.size, header, data)
    out.seek(header)
    out.write(_local(member))
    out.seek(data + blob.size)
    return member


def _refuse(file: Path, problem: str) -> NoReturn:
    raise IntegrityError(f"{file}: {problem}", hint="`mbpm pack FOLDER` makes a sound archive")


def _take(stream: BinaryIO, count: int, file: Path) -> bytes:
    raw = stream.read(count)
    if len(raw) != count:
        _refuse(file, "is truncated")
    return raw


def _read_members(stream: BinaryIO, size: int, file: Path) -> list[_Member]:
    """Walk the members from the first byte; leaves the stream at the central directory."""
    members: list[_Member] = []
    while True:
        header = stream.tell()
        signature = _take(stream, 4, file)
        if signature == _CENTRAL_SIGNATURE and members:
            stream.seek(header)
            return members
        if signature != _LOCAL_SIGNATURE:
            _refuse(file, f"holds something else than a member at byte {header:,}")
        raw = signature + _take(stream, _LOCAL.size - 4, file)
        _, _, flags, method, _, _, crc, packed, length, name_length, extra = _LOCAL.unpack(raw)
        name = _member_name(_take(stream, name_length, file), not members, file)
        if any(m.name == name for m in members):
            _refuse(file, f"member `{name}` stands twice")
        if method != 0 or packed != length:
            _refuse(file, f"member `{name}` is compressed")
        if flags & ~_UTF8_FLAG or extra:
            _refuse(file, f"member `{name}` uses a feature of zip that archives do not have")
        if not members and length > MAX_DOCUMENT_BYTES:
            _refuse(file, f"`{name}` is larger than the {MAX_DOCUMENT_BYTES:,} bytes accepted")
        data = stream.tell()
        if data + length > size:
            _refuse(file, "is truncated")
        members.append(_Member(name, crc, length, header, data))
        stream.seek(data + length)


def _member_name(raw: bytes, first: bool, file: Path) -> str:
    name = raw.decode("ascii", errors="backslashreplace")
    if first and name != MANIFEST_FILE:
        _refuse(file, f"begins with member {name[:200]!r} instead of `{MANIFEST_FILE}`")
    if name not in PACK_FILES and name != MANIFEST_FILE:
        _refuse(file, f"member {name[:200]!r} is not a file of a pack")
    return name


def _read_directory(stream: BinaryIO, members: list[_Member], file: Path) -> None:
    """Check that the central directory repeats the members, and that nothing follows it."""
    start = stream.tell()
    for member in members:
        raw = _take(stream, _CENTRAL.size, file)
        fields = _CENTRAL.unpack(raw)
        signature, _, _, flags, method, _, _, crc, packed, length = fields[:10]
        name_length, extra, comment, disk, _, attributes, header = fields[10:]
        if signature != _CENTRAL_SIGNATURE or _take(stream, name_length, file) != (
            member.name.encode()
        ):
            _refuse(file, f"its directory does not list member `{member.name}`")
        kind = stat.S_IFMT(attributes >> 16)
        if kind not in (0, stat.S_IFREG) or attributes & _FOLDER_ATTRIBUTE:
            _refuse(file, f"member `{member.name}` is not a plain file")
        described = (crc, packed, length, header)
        if described != (member.crc, member.size, member.size, member.header):
            _refuse(file, f"its directory describes member `{member.name}` otherwise")
        if method or flags & ~_UTF8_FLAG or extra or comment or disk:
            _refuse(file, f"member `{member.name}` uses a feature of zip that archives do not have")
    size = stream.tell() - start
    count = len(members)
    expected = _END.pack(_END_SIGNATURE, 0, 0, count, count, size, start, 0)
    if _take(stream, _END.size, file) != expected:
        _refuse(file, "its directory does not end as its members need")
    if stream.read(1):
        _refuse(file, "has data after its end")
