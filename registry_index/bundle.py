"""`.mbundle`: packs, the bases they need and all that is known of them in one file.

A zip (APPNOTE 6.3) of `bundle.json` and then every blob it lists as `blobs/SHA256`, in that order,
stored as they are. Every size and place is written in the zip64 form, whether it has to be or not,
so there is one way to write a bundle: `bundle.json` and the checksums decide every byte that is
not a blob's. The reader makes those bytes anew and compares. It never looks at a path in the
file but to see that it is the one that has to stand there.
"""

from __future__ import annotations

import hashlib
import os
import struct
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from specs.base_card import BaseCard
from specs.blobs import CHUNK_BYTES
from specs.bundle import BUNDLE_FILE, Bundle
from specs.errors import IntegrityError, NotFoundError, UsageError
from specs.manifest import Manifest
from specs.model import MAX_DOCUMENT_BYTES

SUFFIX = ".mbundle"
MAX_DOCUMENTS_BYTES = 64 * 1024 * 1024
"""The most that all manifests and cards of a bundle may have: a reader holds them in memory."""

_LOCAL = struct.Struct("<4s5H3I2H")
_LOCAL_EXTRA = struct.Struct("<2H2Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_CENTRAL_EXTRA = struct.Struct("<2H3Q")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")
_END_BYTES = _END64.size + _LOCATOR.size + _END.size
_LOCAL_FIELDS = (
    *("signature", "version", "flags", "method", "time", "date"),
    *("checksum", "packed-size", "size", "name-length", "extra-length"),
)
_VERSION, _UNIX, _DATE_1980, _FILE_MODE = 45, 3 << 8, 0x21, 0o100644 << 16
_ZIP64, _IN_EXTRA, _MANY = 1, 0xFFFFFFFF, 0xFFFF


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    header: int
    """Offset of the local header."""
    crc: int = 0

    @property
    def data(self) -> int:
        """Offset of the bytes."""
        return self.header + _LOCAL.size + len(self.name) + _LOCAL_EXTRA.size

    @property
    def end(self) -> int:
        """Offset of what comes next."""
        return self.data + self.size


@dataclass(frozen=True)
class BundleFile:
    """A bundle whose structure, manifests and cards were checked; the other blobs not yet."""

    file: Path
    content: Bundle
    manifests: Mapping[str, Manifest]
    """By digest."""
    cards: Mapping[str, BaseCard]
    """By digest."""
    places: Mapping[str, int]
    """Digest of a blob -> offset of its first byte in the file."""


def write_bundle(content: Bundle, files: Mapping[str, Path | bytes], target: Path) -> None:
    """Write a bundle; the same content always gives the same bytes.

    Args:
        content: What it holds.
        files: Digest of every blob -> where its bytes are, or the bytes themselves.
        target: The file; replaced whole, or left as it was when anything fails.

    Raises:
        UsageError: it lists more than one bundle can.
        IntegrityError: a file is not what its digest says.
    """
    raw = content.canonical()
    if len(raw) > MAX_DOCUMENT_BYTES or _documents_bytes(content) > MAX_DOCUMENTS_BYTES:
        raise UsageError(
            f"one bundle cannot list {len(content.packs):,} packs",
            hint="name some of them, and make several bundles",
        )
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as out:
            members = [_write(out, _Member(BUNDLE_FILE, len(raw), 0), iter([raw]))]
            for blob in content.blobs:
                source = files[blob.sha256]
                member = _Member(f"blobs/{blob.sha256}", blob.size, out.tell())
                members.append(_write(out, member, _checked(source, blob.sha256, blob.size)))
            out.write(_directory(members))
            out.flush()
            os.fsync(out.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def read_bundle(file: Path) -> BundleFile:
    """Check a bundle's structure and read its documents; the other blobs are not read.

    Raises:
        NotFoundError: there is no such file.
        IntegrityError: it is not, byte for byte, what `write_bundle` makes of its content.
    """
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file")
    with file.open("rb") as stream:
        raw = _read_content(stream, file)
        content = Bundle.parse(raw, f"{file}, {BUNDLE_FILE}")
        if content.canonical() != raw:
            _refuse(file, f"`{BUNDLE_FILE}` is not canonical JSON")
        if _documents_bytes(content) > MAX_DOCUMENTS_BYTES:
            _refuse(file, f"its manifests have more than {MAX_DOCUMENTS_BYTES:,} bytes")
        members = _layout(content, len(raw))
        total = members[-1].end + sum(map(_central_size, members)) + _END_BYTES
        size = file.stat().st_size
        if size < total:
            _refuse(file, f"is truncated: {size:,} of {total:,} bytes")
        if size > total:
            _refuse(file, "has data after its end")
        members = [_read_header(stream, m, file) for m in members]
        if members[0].crc != zlib.crc32(raw):
            _refuse(file, f"the checksum of `{BUNDLE_FILE}` is wrong")
        stream.seek(members[-1].end)
        if stream.read() != _directory(members):
            _refuse(file, "its directory does not describe its members")
        places = {m.name.partition("/")[2]: m.data for m in members[1:]}
        return _with_documents(stream, file, content, places)


def _documents_bytes(content: Bundle) -> int:
    documents = {p.line.manifest for p in content.packs} | {b.card for b in content.bases}
    return sum(b.size for b in content.blobs if b.sha256 in documents)


def _write(out: BinaryIO, member: _Member, pieces: Iterator[bytes]) -> _Member:
    out.seek(member.data)
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
        out.write(piece)
    member = _Member(member.name, member.size, member.header, crc)
    out.seek(member.header)
    out.write(_local(member))
    out.seek(member.end)
    return member


def _checked(source: Path | bytes, sha256: str, size: int) -> Iterator[bytes]:
    """The bytes of a blob, in pieces; raises at the end where they were not its bytes."""
    digest, count = hashlib.sha256(), 0
    for piece in _pieces(source, size + 1):
        digest.update(piece)
        count += len(piece)
        yield piece
    if count != size or digest.hexdigest() != sha256:
        name = source if isinstance(source, Path) else f"blob {sha256[:12]}"
        raise IntegrityError(
            f"{name}: its bytes do not match its digest {sha256[:12]}",
            hint="`mbpm verify` tells what is damaged and how to mend it",
        )


def _pieces(source: Path | bytes, size: int) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as stream:
        while size and (piece := stream.read(min(size, CHUNK_BYTES))):
            size -= len(piece)
            yield piece


def _local(member: _Member) -> bytes:
    return (
        _LOCAL.pack(
            b"PK\3\4",
            *(_VERSION, 0, 0, 0, _DATE_1980),
            *(member.crc, _IN_EXTRA, _IN_EXTRA, len(member.name), _LOCAL_EXTRA.size),
        )
        + member.name.encode()
        + _LOCAL_EXTRA.pack(_ZIP64, _LOCAL_EXTRA.size - 4, member.size, member.size)
    )


def _central(member: _Member) -> bytes:
    sizes = (member.size, member.size, member.header)
    return (
        _CENTRAL.pack(
            b"PK\1\2",
            *(_UNIX | _VERSION, _VERSION, 0, 0, 0, _DATE_1980),
            *(member.crc, _IN_EXTRA, _IN_EXTRA, len(member.name), _CENTRAL_EXTRA.size),
            *(0, 0, 0, _FILE_MODE, _IN_EXTRA),
        )
        + member.name.encode()
        + _CENTRAL_EXTRA.pack(_ZIP64, _CENTRAL_EXTRA.size - 4, *sizes)
    )


def _central_size(member: _Member) -> int:
    return _CENTRAL.size + len(member.name) + _CENTRAL_EXTRA.size


def _directory(members: Sequence[_Member]) -> bytes:
    """Everything after the last member."""
    raw = b"".join(map(_central, members))
    start, count = members[-1].end, len(members)
    return (
        raw
        + _END64.pack(
            b"PK\6\6",
            *(_END64.size - 12, _UNIX | _VERSION, _VERSION, 0, 0),
            *(count, count, len(raw), start),
        )
        + _LOCATOR.pack(b"PK\6\7", 0, start + len(raw), 1)
        + _END.pack(b"PK\5\6", 0, 0, _MANY, _MANY, _IN_EXTRA, _IN_EXTRA, 0)
    )


def _layout(content: Bundle, raw_size: int) -> list[_Member]:
    """Where every member of a bundle has to stand."""
    members = [_Member(BUNDLE_FILE, raw_size, 0)]
    for blob in content.blobs:
        members.append(_Member(f"blobs/{blob.sha256}", blob.size, members[-1].end))
    return members


def _refuse(file: Path, problem: str) -> NoReturn:
    raise IntegrityError(f"{file}: {problem}", hint="`mbpm bundle` makes a sound one")


def _read_content(stream: BinaryIO, file: Path) -> bytes:
    """The first member, which says what all others are."""
    start = _Member(BUNDLE_FILE, 0, 0).data
    raw = stream.read(start)
    if len(raw) < start or raw[:4] != b"PK\3\4":
        _refuse(file, "is not a bundle")
    _, _, size, _ = _LOCAL_EXTRA.unpack(raw[-_LOCAL_EXTRA.size :])
    if size > MAX_DOCUMENT_BYTES:
        _refuse(file, f"`{BUNDLE_FILE}` is larger than the {MAX_DOCUMENT_BYTES:,} bytes accepted")
    stream.seek(0)
    _read_header(stream, _Member(BUNDLE_FILE, size, 0), file)
    raw = stream.read(size)
    if len(raw) < size:
        _refuse(file, "is truncated")
    return raw


def _read_header(stream: BinaryIO, member: _Member, file: Path) -> _Member:
    """The member with its checksum, if its header is what it has to be."""
    stream.seek(member.header)
    raw = stream.read(member.data - member.header)
    if len(raw) < member.data - member.header:
        _refuse(file, "is truncated")
    crc = _LOCAL.unpack(raw[: _LOCAL.size])[6]
    checked = _Member(member.name, member.size, member.header, crc)
    expected = _local(checked)
    if raw != expected:
        _refuse(file, f"member `{member.name}` {_difference(raw, expected)}")
    return checked


def _difference(raw: bytes, expected: bytes) -> str:
    found = dict(zip(_LOCAL_FIELDS, _LOCAL.unpack(raw[: _LOCAL.size]), strict=True))
    wanted = dict(zip(_LOCAL_FIELDS, _LOCAL.unpack(expected[: _LOCAL.size]), strict=True))
    if found["signature"] != wanted["signature"]:
        return "is not where it has to be"
    if found["flags"] & 1:
        return "is encrypted"
    if found["method"]:
        return "is compressed"
    for field in _LOCAL_FIELDS:
        if found[field] != wanted[field]:
            return f"has {field} {found[field]}, and a bundle's has {wanted[field]}"
    name = raw[_LOCAL.size : -_LOCAL_EXTRA.size]
    if name != expected[_LOCAL.size : -_LOCAL_EXTRA.size]:
        return f"is missing: {name.decode('ascii', 'backslashreplace')[:200]!r} is in its place"
    return f"does not have the size that `{BUNDLE_FILE}` says"


def _with_documents(
    stream: BinaryIO, file: Path, content: Bundle, places: Mapping[str, int]
) -> BundleFile:
    sizes = {b.sha256: b.size for b in content.blobs}

    def document(digest: str, what: str) -> bytes:
        stream.seek(places[digest])
        raw = stream.read(sizes[digest])
        if hashlib.sha256(raw).hexdigest() != digest:
            _refuse(file, f"the bytes of {what} do not match its digest")
        return raw

    manifests, cards, needed = {}, {}, {}
    for pack in content.packs:
        line, what = pack.line, f"the manifest of {pack.line.name}"
        raw = document(line.manifest, what)
        manifest = manifests[line.manifest] = Manifest.parse(raw, f"{file}, {what}")
        if (field := line.disagreement(manifest)) is not None:
            _refuse(file, f"`{field}` of {line.name} is not what its manifest says")
        if manifest.canonical() != raw or line.manifest_size != len(raw):
            _refuse(file, f"{what} is not canonical JSON, or not as large as its line says")
        needed[line.manifest] = len(raw)
        needed |= {b.sha256: b.size for b in manifest.blobs}
    for base in content.bases:
        what = f"the card of base {base.name}"
        raw = document(base.card, what)
        card = cards[base.card] = BaseCard.parse(raw, f"{file}, {what}")
        if card.name != base.name or card.canonical() != raw:
            _refuse(file, f"{what} is another's, or not canonical JSON")
        needed[base.card] = len(raw)
        needed |= {f.blob.sha256: f.blob.size for f in card.files}
    for digest in sorted(needed.keys() ^ sizes.keys()):
        lacks = "lacks" if digest in needed else "holds, and nothing in it needs,"
        _refuse(file, f"{lacks} blob {digest[:12]}")
    for digest, size in sizes.items():
        if needed[digest] != size:
            _refuse(
                file, f"blob {digest[:12]} has {size:,} bytes, and {needed[digest]:,} in a manifest"
            )
    fingerprints = {c.fingerprint for c in cards.values()}
    for manifest in manifests.values():
        if manifest.base.fingerprint not in fingerprints:
            _refuse(file, f"lacks base {manifest.base.name}, which {manifest.name} was made for")
    return BundleFile(file, content, manifests, cards, places)
