"""Bundles made by hand, and bundles that somebody tampered with."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

from mbpm.catalogue import line_of
from registry_index import bundle as module
from registry_index.packing import build_manifest
from specs.bundle import Bundle, BundledBase, BundledBlob, BundledPack
from specs.model import canonical_json
from tests.support.packs import pack_folder, tiny_base


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


def rewrite(file: Path, **packs: Any) -> None:
    """Change what a bundle says of its packs: `letters={"registry": "…"}`."""
    raw = file.read_bytes()
    document = json.loads(entries(raw)[0][1])
    for pack in document["packs"]:
        pack |= packs.get(pack["line"]["name"], {})
    file.write_bytes(changed(raw, packs=document["packs"]))


def make(
    mbundle: Path, tmp_path: Path, *, base: str = "tiny", readme: bytes | None = None, **pack: Any
) -> None:
    """A sound file around whatever pack."""
    card = tiny_base(tmp_path / "made-base", name=base)
    pack["base"] = {"name": base, "fingerprint": card.fingerprint}
    manifest, found = build_manifest(pack_folder(tmp_path / "made-pack", "law", **pack))
    files: dict[str, Path | bytes] = {b.sha256: found[b.path] for b in manifest.blobs}
    files |= {manifest.digest(): manifest.canonical(), card.digest(): card.canonical()}
    files[card.files[0].blob.sha256] = tmp_path / "made-base" / f"{base}.gguf"
    sizes = {d: len(f) if isinstance(f, bytes) else f.stat().st_size for d, f in files.items()}
    content = Bundle(
        packs=(BundledPack(line=line_of(manifest)),),
        bases=(BundledBase(name=base, card=card.digest()),),
        blobs=tuple(BundledBlob(sha256=d, size=sizes[d]) for d in sorted(sizes)),
    )
    mbundle.parent.mkdir(parents=True, exist_ok=True)
    module.write_bundle(content, files, mbundle)


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
