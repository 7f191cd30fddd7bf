"""Cards and manifests as whoever runs a base and its packs sees them.

What is stored in a folder named by its digest was validated before it got there. While its bytes
have that digest it is taken as it is, so that a start waits for no validation; with another it is
refused. In a folder of another name it is read like any document.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specs.errors import IntegrityError
from specs.file_names import CARD_FILE, MANIFEST_FILE

if TYPE_CHECKING:
    from typing import Protocol

    from specs.manifest import Activation

    class Shape(Protocol):
        """Of `specs.base_card.ModuleShape`."""

        @property
        def out_features(self) -> int: ...
        @property
        def in_features(self) -> int: ...

    class Card(Protocol):
        """Of `specs.base_card.BaseCard`, what running the base needs."""

        @property
        def name(self) -> str: ...
        @property
        def fingerprint(self) -> str: ...
        @property
        def layers(self) -> int: ...
        @property
        def context_length(self) -> int: ...
        @property
        def kv_bytes_per_token(self) -> int: ...
        @property
        def resident_bytes(self) -> int: ...
        @property
        def modules(self) -> Mapping[str, Shape]: ...

    class Ref(Protocol):
        """Of `specs.described.BaseRef`."""

        @property
        def name(self) -> str: ...
        @property
        def fingerprint(self) -> str: ...

    class Update(Protocol):
        """Of `specs.manifest.AdapterInfo`."""

        @property
        def activation(self) -> Activation: ...
        @property
        def rank(self) -> int: ...
        @property
        def modules(self) -> int: ...
        @property
        def scale(self) -> float: ...

    class PackManifest(Protocol):
        """Of `specs.manifest.Manifest`, what running the pack needs."""

        @property
        def name(self) -> str: ...
        @property
        def version(self) -> str: ...
        @property
        def base(self) -> Ref: ...
        @property
        def adapter(self) -> Update: ...


@dataclass(frozen=True)
class _Shape:
    out_features: int
    in_features: int


@dataclass(frozen=True)
class _Card:
    name: str
    fingerprint: str
    layers: int
    context_length: int
    kv_bytes_per_token: int
    resident_bytes: int
    modules: Mapping[str, _Shape]


@dataclass(frozen=True)
class _Ref:
    name: str
    fingerprint: str


@dataclass(frozen=True)
class _Update:
    activation: Activation
    rank: int
    modules: int
    scale: float


@dataclass(frozen=True)
class _Manifest:
    name: str
    version: str
    base: _Ref
    adapter: _Update


def read_card(base_dir: Path) -> Card:
    """The card of a base folder.

    Raises:
        IntegrityError: it is no card, or not the one that was stored.
    """
    file = base_dir / CARD_FILE
    raw, _, known = _read(file)
    if known:
        value: dict[str, Any] = json.loads(raw)
        shapes = {
            name: _Shape(shape["out_features"], shape["in_features"])
            for name, shape in value["modules"].items()
        }
        fields = {key: value[key] for key in _Card.__dataclass_fields__}
        return _Card(**{**fields, "modules": shapes})
    from specs.base_card import BaseCard

    return BaseCard.parse(raw, str(file))


def read_manifest(pack_dir: Path) -> tuple[PackManifest, str]:
    """The manifest of a pack folder, and the digest of its bytes.

    Raises:
        IntegrityError: it is no manifest, or not the one that was stored.
    """
    file = pack_dir / MANIFEST_FILE
    raw, digest, known = _read(file)
    if known:
        value: dict[str, Any] = json.loads(raw)
        base, update = value["base"], value["adapter"]
        stored = _Manifest(
            value["name"],
            value["version"],
            _Ref(base["name"], base["fingerprint"]),
            _Update(
                update["activation"],
                update["rank"],
                update["modules"],
                update["alpha"] / update["rank"],
            ),
        )
        return stored, digest
    from specs.manifest import Manifest

    return Manifest.parse(raw, str(file)), digest


def _read(file: Path) -> tuple[bytes, str, bool]:
    """A document, its digest, and whether that names its folder.

    Raises:
        IntegrityError: another digest does.
    """
    raw = file.read_bytes()
    digest, name = hashlib.sha256(raw).hexdigest(), file.parent.name
    if digest != name and re.fullmatch("[0-9a-f]{64}", name):
        raise IntegrityError(
            f"{file}: was changed, its bytes do not match its digest",
            hint="`mbpm verify` shows what is damaged, `mbpm repair` mends it",
        )
    return raw, digest, digest == name
