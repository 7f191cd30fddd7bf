"""`mbpm.lock`: the exact packs and bases of a project, as `mbpm lock` found them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from specs.blobs import MAX_BLOB_BYTES
from specs.index_line import OneLine
from specs.manifest import Manifest
from specs.model import Contract
from specs.names import HARDWARE, FileName, Name, Requirable, Sha256
from specs.versions import Requirement, RequirementText, Version, VersionText

LOCK_FILE = "mbpm.lock"
_HEAD = """\
# Written by `mbpm lock` from mbpm.toml: keep it under version control, do not edit it.
"""


def _check_label(text: str) -> str:
    if not text.isprintable():
        raise ValueError("the name of a registry holds no control characters")
    return text


RegistryLabel = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(_check_label)]
"""`bundled`, an address, or a path; one that begins with `.` is relative to the lock."""


class LockedBlob(Contract):
    """One file of a pack."""

    path: FileName
    size: Annotated[int, Field(ge=0, le=MAX_BLOB_BYTES)]
    sha256: Sha256


class LockedBase(Contract):
    """A base of the project."""

    name: Name
    fingerprint: Sha256
    card: Sha256
    """Digest of its card, which has the digests of its files."""
    registry: RegistryLabel


class LockedPack(Contract):
    """One pack of the project at one version."""

    name: Name
    version: VersionText
    manifest: Sha256
    registry: RegistryLabel
    publisher: OneLine = ""
    """Who published this version, where the registry says so."""
    base: Name
    """One of the lock's bases."""
    auto: bool = False
    """Whether it is there only because another pack needs it."""
    requires: dict[Requirable, RequirementText] = {}
    """As in its manifest."""
    blobs: Annotated[tuple[LockedBlob, ...], Field(min_length=1, max_length=16)]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(b.size for b in self.blobs)

    def disagreement(self, manifest: Manifest) -> str | None:
        """What the lock says of the pack and its manifest does not, if anything."""
        if (manifest.name, manifest.version) != (self.name, self.version):
            return f"its manifest is that of {manifest.name} {manifest.version}"
        ours = {(b.path, b.size, b.sha256) for b in self.blobs}
        theirs = {(b.path, b.size, b.sha256) for b in manifest.blobs}
        if ours != theirs:
            path = min(ours ^ theirs)[0]
            return f"its manifest says something else of {path}"
        if manifest.requires != self.requires:
            return "its manifest requires something else"
        return None


class Lock(Contract):
    """The content of mbpm.lock."""

    format: Literal[1] = 1
    wants: Sha256
    """`Project.wants()` of the mbpm.toml it was made from."""
    bases: tuple[LockedBase, ...] = ()
    packs: tuple[LockedPack, ...] = ()

    @model_validator(mode="after")
    def _holds_together(self) -> Lock:
        bases = _by_name("base", self.bases)
        packs = _by_name("pack", self.packs)
        for pack in self.packs:
            title = f"{pack.name} {pack.version}"
            if pack.base not in bases:
                raise ValueError(f"{title} needs base `{pack.base}`, which is not in the lock")
            for name, text in pack.requires.items():
                # what stands in for a name has no version, and a lock does not say what stands in
                if name in HARDWARE or name == pack.name or text.strip() == "*":
                    continue
                other = packs.get(name)
                if other is None:
                    raise ValueError(f"{title} requires `{name} {text}`, which is not in the lock")
                if not Requirement(text).admits(Version(other.version), prereleases=True):
                    raise ValueError(
                        f"{title} requires `{name} {text}`, and the lock has {other.version}"
                    )
        return self

    def pack(self, name: str) -> LockedPack | None:
        """The locked pack called `name`, if any."""
        return next((p for p in self.packs if p.name == name), None)

    def base(self, name: str) -> LockedBase | None:
        """The locked base called `name`, if any."""
        return next((b for b in self.bases if b.name == name), None)

    def render(self) -> bytes:
        """The lock as TOML: the same lock is always the same bytes."""
        lines = [_HEAD, "format = 1\n", f"wants = {_text(self.wants)}\n"]
        for base in sorted(self.bases, key=lambda b: b.name):
            lines.append("\n[[bases]]\n")
            for key in ("name", "fingerprint", "card", "registry"):
                lines.append(f"{key} = {_text(getattr(base, key))}\n")
        for pack in sorted(self.packs, key=lambda p: p.name):
            lines += _render_pack(pack)
        return "".join(lines).encode()


_Named = TypeVar("_Named", LockedPack, LockedBase)


def _by_name(kind: str, entries: Iterable[_Named]) -> dict[str, _Named]:
    found: dict[str, _Named] = {}
    for entry in entries:
        if entry.name in found:
            raise ValueError(f"{kind} `{entry.name}` stands twice")
        found[entry.name] = entry
    return found


def _render_pack(pack: LockedPack) -> Iterator[str]:
    yield "\n[[packs]]\n"
    for key in ("name", "version", "manifest", "registry"):
        yield f"{key} = {_text(getattr(pack, key))}\n"
    if pack.publisher:
        yield f"publisher = {_text(pack.publisher)}\n"
    yield f"base = {_text(pack.base)}\n"
    if pack.auto:
        yield "auto = true\n"
    if pack.requires:
        yield f"requires = {_table((n, _text(t)) for n, t in sorted(pack.requires.items()))}\n"
    yield "blobs = [\n"
    for blob in sorted(pack.blobs, key=lambda b: b.path):
        pairs = (
            ("path", _text(blob.path)),
            ("size", str(blob.size)),
            ("sha256", _text(blob.sha256)),
        )
        yield f"    {_table(pairs)},\n"
    yield "]\n"


def _table(pairs: Iterable[tuple[str, str]]) -> str:
    """An inline table; a name with a dot is quoted, for it would be two keys."""
    return "{ " + ", ".join(f"{_text(k) if '.' in k else k} = {v}" for k, v in pairs) + " }"


def _text(value: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for those of characters beyond the BMP."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
