"""Bundles that somebody tampered with."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from typing import Any

from registry_index import bundle as module
from specs.bundle import Bundle
from specs.model import canonical_json


def entries(raw: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(raw)) as reader:
        return [(n, reader.read(n)) for n in reader.namelist()]


def forged(members: list[tuple[str, bytes]]) -> bytes:
    """A file of the right form with any members at all."""
    out, listed = b"", []
    for name, content in members:
        member = module._Member(name, len(content), len(out), zlib.crc32(content))
        out += module._local(member) + content
        listed.append(member)
    return out + module._directory(listed)


def changed(raw: bytes, **fields: Any) -> bytes:
    """The bundle with other fields in its `bundle.json`."""
    (name, first), *rest = entries(raw)
    value = Bundle.parse(first, "sound").model_dump(mode="json", exclude_none=True)
    return forged([(name, canonical_json(value | fields)), *rest])


def with_blob(raw: bytes, old: str, new: bytes) -> bytes:
    """The bundle with another blob in the place of one, and listed so."""
    (name, first), *rest = entries(raw)
    digest = hashlib.sha256(new).hexdigest()
    blobs = {n.partition("/")[2]: d for n, d in rest if n != f"blobs/{old}"} | {digest: new}
    listing = [{"sha256": d, "size": len(b)} for d, b in sorted(blobs.items())]
    document = Bundle.parse(first, "sound").model_dump(mode="json", exclude_none=True)
    document["blobs"] = listing
    for pack in document["packs"]:
        if pack["line"]["manifest"] == old:
            pack["line"] |= {"manifest": digest, "manifest_size": len(new)}
    for base in document["bases"]:
        if base["card"] == old:
            base["card"] = digest
    return forged(
        [(name, canonical_json(document)), *((f"blobs/{d}", blobs[d]) for d in sorted(blobs))]
    )
