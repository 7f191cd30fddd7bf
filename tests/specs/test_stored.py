"""Documents that whoever runs a pack reads: the same values, validated or known by their digest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from specs.base_card import CARD_FILE, BaseCard
from specs.errors import IntegrityError
from specs.manifest import MANIFEST_FILE, Manifest
from specs.stored import read_card, read_manifest

if TYPE_CHECKING:
    from specs.stored import Card, PackManifest

BUNDLED = Path(__file__).parents[2] / "registry_index" / "bundled"


def documents(model: type[BaseCard] | type[Manifest]) -> list[bytes]:
    found = []
    for file in BUNDLED.rglob("*"):
        if file.is_file() and file.stat().st_size < 1 << 20:
            try:
                found.append(model.parse(file.read_bytes(), "").canonical())
            except IntegrityError:
                continue
    assert found
    return found


def told(card: Card) -> tuple[object, ...]:
    shapes = {n: (s.out_features, s.in_features) for n, s in card.modules.items()}
    return (
        card.name, card.fingerprint, card.layers, card.context_length, card.kv_bytes_per_token,
        card.resident_bytes, shapes,
    )  # fmt: skip


def said(manifest: PackManifest) -> tuple[object, ...]:
    base, update = manifest.base, manifest.adapter
    return (
        manifest.name, manifest.version, base.name, base.fingerprint, update.activation,
        update.rank, update.modules, update.scale,
    )  # fmt: skip


def stored(folder: Path, name: str, raw: bytes) -> Path:
    place = folder / hashlib.sha256(raw).hexdigest()
    place.mkdir()
    (place / name).write_bytes(raw)
    return place


def test_a_card(tmp_path: Path) -> None:
    for raw in documents(BaseCard):
        place = stored(tmp_path, CARD_FILE, raw)
        card = read_card(place)
        assert not isinstance(card, BaseCard)
        elsewhere = read_card(place.rename(tmp_path / "elsewhere"))
        assert isinstance(elsewhere, BaseCard) and told(card) == told(elsewhere)
        (tmp_path / "elsewhere" / CARD_FILE).unlink()
        (tmp_path / "elsewhere").rmdir()


def test_a_manifest(tmp_path: Path) -> None:
    for raw in documents(Manifest):
        place = stored(tmp_path, MANIFEST_FILE, raw)
        manifest, digest = read_manifest(place)
        assert not isinstance(manifest, Manifest) and digest == place.name
        elsewhere, same = read_manifest(place.rename(tmp_path / "elsewhere"))
        assert isinstance(elsewhere, Manifest) and same == digest
        assert said(manifest) == said(elsewhere)
        (tmp_path / "elsewhere" / MANIFEST_FILE).unlink()
        (tmp_path / "elsewhere").rmdir()


@pytest.mark.parametrize("kind", ["card", "manifest"])
def test_a_valid_document_that_is_not_the_one_stored_is_refused(tmp_path: Path, kind: str) -> None:
    card = kind == "card"
    raw = documents(BaseCard if card else Manifest)[0]
    name, read = (CARD_FILE, read_card) if card else (MANIFEST_FILE, read_manifest)
    place = stored(tmp_path, name, raw)
    changed = raw.replace(b'"description":"', b'"description":"x')
    assert changed != raw and (BaseCard if card else Manifest).parse(changed, "")
    (place / name).write_bytes(changed)
    with pytest.raises(IntegrityError, match=f"{name}: was changed") as caught:
        read(place)
    assert "`mbpm repair`" in (caught.value.hint or "")
    read(place.rename(tmp_path / "elsewhere"))
