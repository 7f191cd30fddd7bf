"""`.mbundle` files: a round trip, and one test per attack, named after it."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mbpm.offers import line_of
from registry_index import bundle as module
from registry_index.bundle import read_bundle, write_bundle
from registry_index.packing import build_manifest
from specs.bundle import Bundle, BundledBase, BundledBlob, BundledPack
from specs.errors import IntegrityError, MbpmError, NotFoundError, UsageError
from tests.support.bundles import changed, entries, forged, with_blob
from tests.support.packs import pack_folder, tiny_base

Files = dict[str, Path | bytes]
Refused = Callable[[bytes, str], None]
PUBLISHED = "2026-01-01T00:00:00Z"


@pytest.fixture
def made(tmp_path: Path) -> tuple[Bundle, Files]:
    """A bundle of the packs `law` and `words` and the base `tiny`."""
    card = tiny_base(tmp_path / "base")
    files: Files = {card.digest(): card.canonical()}
    files[card.files[0].blob.sha256] = tmp_path / "base" / "tiny.gguf"
    packs = []
    for name in ("law", "words"):
        manifest, found = build_manifest(pack_folder(tmp_path / name, name))
        line = line_of(manifest).model_copy(update={"published": PUBLISHED})
        packs.append(BundledPack(line=line, registry="bundled", auto=name == "words"))
        files[line.manifest] = manifest.canonical()
        files |= {b.sha256: found[b.path] for b in manifest.blobs}
    content = Bundle(
        packs=tuple(packs),
        bases=(BundledBase(name="tiny", card=card.digest(), registry="https://packs.example"),),
        blobs=tuple(BundledBlob(sha256=d, size=len(data(files[d]))) for d in sorted(files)),
    )
    return content, files


def data(source: Path | bytes) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


@pytest.fixture
def sound(made: tuple[Bundle, Files], tmp_path: Path) -> bytes:
    """The bytes of a good bundle."""
    write_bundle(*made, tmp_path / "sound.mbundle")
    return (tmp_path / "sound.mbundle").read_bytes()


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    def check(raw: bytes, rule: str) -> None:
        file = tmp_path / "evil.mbundle"
        file.write_bytes(raw)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(IntegrityError, match=rule) as caught:
            read_bundle(file)
        assert str(file) in caught.value.message
        assert sorted(tmp_path.rglob("*")) == before

    return check


def test_round_trip(made: tuple[Bundle, Files], tmp_path: Path) -> None:
    content, files = made
    target = tmp_path / "a.mbundle"
    write_bundle(content, files, target)
    opened = read_bundle(target)
    assert opened.content == content
    assert {m.name for m in opened.manifests.values()} == {"law", "words"}
    assert {c.name for c in opened.cards.values()} == {"tiny"}
    raw = target.read_bytes()
    for blob in content.blobs:
        at = opened.places[blob.sha256]
        assert raw[at : at + blob.size] == data(files[blob.sha256])


def test_the_same_content_gives_the_same_bytes(
    made: tuple[Bundle, Files], sound: bytes, tmp_path: Path
) -> None:
    content, files = made
    for file in files.values():
        if isinstance(file, Path):
            file.touch()
    write_bundle(content, dict(reversed(files.items())), tmp_path / "again.mbundle")
    assert (tmp_path / "again.mbundle").read_bytes() == sound


def test_any_zip_program_can_read_one(made: tuple[Bundle, Files], sound: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(sound)) as reader:
        assert reader.testzip() is None
    content, files = made
    expected = [(f"blobs/{b.sha256}", data(files[b.sha256])) for b in content.blobs]
    assert entries(sound) == [("bundle.json", content.canonical()), *expected]


def test_what_two_packs_share_is_there_once(made: tuple[Bundle, Files], sound: bytes) -> None:
    names = [n for n, _ in entries(sound)]
    assert len(names) == len(set(names)) == len(made[0].blobs) + 1


def test_larger_than_a_zip_without_zip64(tmp_path: Path) -> None:
    """The place of a member beyond 4 GiB; a sparse file stands for the bytes."""
    huge = 5 << 30
    member = module._Member("blobs/" + "a" * 64, huge, 0)
    later = module._Member("blobs/" + "b" * 64, 1, member.end, zlib.crc32(b"x"))
    file = tmp_path / "huge.zip"
    with file.open("wb") as out:
        out.write(module._local(member))
        out.seek(later.header)
        out.write(module._local(later) + b"x" + module._directory([member, later]))
    with zipfile.ZipFile(file) as reader:
        assert [i.file_size for i in reader.infolist()] == [huge, 1]
        assert reader.read(later.name) == b"x"


def test_a_file_that_is_not_its_digest(made: tuple[Bundle, Files], tmp_path: Path) -> None:
    content, files = made
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "a.mbundle"
    target.write_bytes(b"the old one")
    weights = tmp_path / "base" / "tiny.gguf"
    for change in (b"not really a modeX", weights.read_bytes() + b"more", b""):
        weights.write_bytes(change)
        with pytest.raises(IntegrityError, match="do not match its digest"):
            write_bundle(content, files, target)
    assert [f.name for f in target.parent.iterdir()] == ["a.mbundle"]
    assert target.read_bytes() == b"the old one"


def test_more_than_one_bundle_can_list(
    made: tuple[Bundle, Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_DOCUMENT_BYTES", 1000)
    with pytest.raises(UsageError, match="cannot list 2 packs"):
        write_bundle(*made, tmp_path / "a.mbundle")
    assert not (tmp_path / "a.mbundle").exists()


def test_no_such_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        read_bundle(tmp_path / "missing.mbundle")


def test_something_else(refused: Refused) -> None:
    for raw in (b"", b"PK", b"x" * 1000, b"PK\5\6" + bytes(18)):
        refused(raw, "is not a bundle")


def test_truncated(sound: bytes, refused: Refused) -> None:
    for length in (80, 300, len(sound) // 2, len(sound) - 22, len(sound) - 1):
        refused(sound[:length], "is truncated")


def test_trailing_data(sound: bytes, refused: Refused) -> None:
    refused(sound + b"x", "has data after its end")


def test_prepended_data(sound: bytes, refused: Refused) -> None:
    refused(b"#!/bin/sh\n" + sound, "is not a bundle")


def test_zip_made_elsewhere(sound: bytes, refused: Refused) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as writer:
        for name, content in entries(sound):
            writer.writestr(name, content)
    refused(out.getvalue(), "bundle")


def test_compressed_member(sound: bytes, refused: Refused) -> None:
    raw = bytearray(sound)
    at = raw.index(b"PK\3\4", 4)
    raw[at + 8 : at + 10] = struct.pack("<H", 8)
    refused(bytes(raw), "is compressed")


def test_encrypted_member(sound: bytes, refused: Refused) -> None:
    raw = bytearray(sound)
    at = raw.index(b"PK\3\4", 4)
    raw[at + 6 : at + 8] = struct.pack("<H", 1)
    refused(bytes(raw), "is encrypted")


def test_data_descriptor(sound: bytes, refused: Refused) -> None:
    raw = bytearray(sound)
    at = raw.index(b"PK\3\4", 4)
    raw[at + 6 : at + 8] = struct.pack("<H", 8)
    refused(bytes(raw), "has flags 8, and a bundle's has 0")


def test_path_traversal(sound: bytes, refused: Refused) -> None:
    first, (name, content), *rest = entries(sound)
    for evil in ("../../../evil", "/etc/passwd", "blobs/../../evil", "C:\\evil"):
        padded = evil + "x" * (len(name) - len(evil))
        refused(forged([first, (padded, content), *rest]), "is missing: .* is in its place")
        refused(forged([first, (evil, content), *rest]), "truncated|name-length")


def test_extra_member(sound: bytes, refused: Refused) -> None:
    refused(forged([*entries(sound), ("blobs/" + "f" * 64, b"evil")]), "data after its end")


def test_duplicate_member(sound: bytes, refused: Refused) -> None:
    members = entries(sound)
    refused(forged([*members, members[1]]), "data after its end")
    refused(forged([*members[:2], members[1], *members[3:]]), "truncated|after its end|its place")


def test_duplicate_in_the_list(made: tuple[Bundle, Files], sound: bytes, refused: Refused) -> None:
    blobs = [b.model_dump() for b in made[0].blobs]
    refused(changed(sound, blobs=[blobs[0], *blobs]), "stands twice or out of order")
    packs = [p.model_dump(mode="json", exclude_none=True) for p in made[0].packs]
    refused(changed(sound, packs=[*packs, packs[1]]), "`packs`.*'words' stands twice")


def test_missing_member(sound: bytes, refused: Refused) -> None:
    refused(forged(entries(sound)[:-1]), "is truncated")


def test_overlapping_members(made: tuple[Bundle, Files], sound: bytes, refused: Refused) -> None:
    """Two entries of the directory that point to the same bytes (Fifield's zip bomb)."""
    start = sound.index(b"PK\1\2")
    size = module._CENTRAL.size + len("bundle.json") + module._CENTRAL_EXTRA.size
    second = start + size
    width = module._CENTRAL.size + 70 + module._CENTRAL_EXTRA.size
    raw = bytearray(sound)
    raw[second + width : second + 2 * width] = raw[second : second + width]
    refused(bytes(raw), "its directory does not describe its members")


def test_second_directory(sound: bytes, refused: Refused) -> None:
    refused(sound + sound[sound.index(b"PK\1\2") :], "data after its end")


def test_directory_says_otherwise(sound: bytes, refused: Refused) -> None:
    start = sound.index(b"PK\1\2")
    for at in (start + 20, start + 38, len(sound) - 22, len(sound) - 60, len(sound) - 1):
        raw = bytearray(sound)
        raw[at] ^= 1
        refused(bytes(raw), "its directory does not describe its members")


def test_symlink_member(sound: bytes, refused: Refused) -> None:
    raw = bytearray(sound)
    at = raw.index(b"PK\1\2") + 38
    raw[at : at + 4] = struct.pack("<I", 0o120777 << 16)
    refused(bytes(raw), "its directory does not describe its members")


def test_size_that_is_not_the_listed_one(
    made: tuple[Bundle, Files], sound: bytes, refused: Refused
) -> None:
    blobs = [b.model_dump() for b in made[0].blobs]
    # a file of a pack: manifests and cards have their digests looked at before
    at = next(i for i, b in enumerate(blobs) if isinstance(made[1][b["sha256"]], Path))
    blobs[at]["size"] -= 1
    shorter = entries(changed(sound, blobs=blobs))
    name, content = shorter[at + 1]
    shorter[at + 1] = (name, content[:-1])
    refused(forged(shorter), "has [0-9,]+ bytes, and [0-9,]+ in a manifest")


def test_gigantic_size(made: tuple[Bundle, Files], sound: bytes, refused: Refused) -> None:
    blobs = [b.model_dump() for b in made[0].blobs]
    blobs[0]["size"] = 1 << 40
    refused(changed(sound, blobs=blobs), "truncated|is not among the blobs")
    blobs[0]["size"] = (1 << 40) + 1
    refused(changed(sound, blobs=blobs), "size")


def test_gigantic_bundle_json(sound: bytes, refused: Refused) -> None:
    raw = bytearray(sound)
    at = module._LOCAL.size + len("bundle.json") + 4
    raw[at : at + 16] = struct.pack("<2Q", 1 << 60, 1 << 60)
    refused(bytes(raw), "`bundle.json` is larger than")
    refused(forged([("bundle.json", b" " * (5 << 20)), *entries(sound)[1:]]), "is larger than")


def test_gigantic_documents_in_all(
    made: tuple[Bundle, Files],
    sound: bytes,
    refused: Refused,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_DOCUMENTS_BYTES", 2000)
    refused(sound, "its manifests have more than 2,000 bytes")
    with pytest.raises(UsageError, match="cannot list 2 packs"):
        write_bundle(*made, tmp_path / "a.mbundle")


def test_bundle_json_that_is_not_canonical(sound: bytes, refused: Refused) -> None:
    (name, first), *rest = entries(sound)
    refused(forged([(name, first + b" "), *rest]), "is not canonical JSON")


def test_wrong_checksum(sound: bytes, refused: Refused) -> None:
    raw = bytearray(sound)
    raw[14] ^= 1
    refused(bytes(raw), "the checksum of `bundle.json` is wrong")


def test_newer_format(sound: bytes, tmp_path: Path) -> None:
    (tmp_path / "newer.mbundle").write_bytes(changed(sound, format=2))
    with pytest.raises(MbpmError, match="has format 2") as caught:
        read_bundle(tmp_path / "newer.mbundle")
    assert caught.value.exit_code == 1


def test_manifest_with_other_bytes(
    made: tuple[Bundle, Files], sound: bytes, refused: Refused
) -> None:
    digest = made[0].packs[0].line.manifest
    members = [
        (n, c.replace(b"law", b"war") if n == f"blobs/{digest}" else c) for n, c in entries(sound)
    ]
    refused(forged(members), "the bytes of the manifest of law do not match its digest")


def test_line_that_says_other_than_its_manifest(
    made: tuple[Bundle, Files], sound: bytes, refused: Refused
) -> None:
    """What is resolved would not be what is installed."""
    for field, value in (
        ("requires", {"evil": "*"}),
        ("provides", ["medical"]),
        ("version", "9.9.9"),
        ("size", 1),
        ("base", {"name": "tiny", "fingerprint": "c" * 64}),
    ):
        packs = [p.model_dump(mode="json", exclude_none=True) for p in made[0].packs]
        packs[0]["line"][field] = value
        refused(changed(sound, packs=packs), f"`{field}` of law is not what its manifest says")


def test_manifest_of_another_name(
    made: tuple[Bundle, Files], sound: bytes, refused: Refused
) -> None:
    packs = [p.model_dump(mode="json", exclude_none=True) for p in made[0].packs]
    packs[0]["line"]["name"] = "medical"
    packs.sort(key=lambda p: p["line"]["name"])
    refused(changed(sound, packs=packs), "`name` of medical is not what its manifest says")


def test_manifest_that_is_none(made: tuple[Bundle, Files], sound: bytes, refused: Refused) -> None:
    refused(with_blob(sound, made[0].packs[0].line.manifest, b"{}"), "manifest of law")
    refused(with_blob(sound, made[0].packs[0].line.manifest, b"\xff"), "is not UTF-8")


def test_card_that_is_none(made: tuple[Bundle, Files], sound: bytes, refused: Refused) -> None:
    refused(with_blob(sound, made[0].bases[0].card, b"[]"), "card of base tiny")


def test_card_of_another_base(made: tuple[Bundle, Files], sound: bytes, refused: Refused) -> None:
    bases = [b.model_dump(exclude_none=True) for b in made[0].bases]
    bases[0]["name"] = "smollm2-135m"
    refused(changed(sound, bases=bases), "the card of base smollm2-135m is another's")


def test_lacks_a_blob(made: tuple[Bundle, Files], sound: bytes, refused: Refused) -> None:
    weights = hashlib.sha256(b"not really a model").hexdigest()
    refused(with_blob(sound, weights, b"something else"), "blob")


def test_holds_what_nothing_needs(
    made: tuple[Bundle, Files], sound: bytes, refused: Refused
) -> None:
    _, *rest = entries(sound)
    extra = b"hidden"
    digest = hashlib.sha256(extra).hexdigest()
    members = sorted([*rest, (f"blobs/{digest}", extra)])
    blobs = [{"sha256": n.partition("/")[2], "size": len(c)} for n, c in members]
    listed = entries(changed(sound, blobs=blobs))[0]
    refused(forged([listed, *members]), f"nothing in it needs, blob {digest[:12]}")


def test_lacks_the_base(made: tuple[Bundle, Files], tmp_path: Path, refused: Refused) -> None:
    content, files = made
    card = tiny_base(tmp_path / "other", name="other", fingerprint="c" * 64)
    kept = {b.sha256 for b in content.blobs} - {content.bases[0].card} | {card.digest()}
    files |= {card.digest(): card.canonical()}
    other = Bundle(
        packs=content.packs,
        bases=(BundledBase(name="other", card=card.digest()),),
        blobs=tuple(BundledBlob(sha256=d, size=len(data(files[d]))) for d in sorted(kept)),
    )
    write_bundle(other, files, tmp_path / "x.mbundle")
    refused((tmp_path / "x.mbundle").read_bytes(), "lacks base tiny, which law was made for")


@pytest.mark.parametrize(
    "label",
    [
        *("folder /etc", "archive /x", "bundle /x", "", "ftp://x", "relative/path", "a\nb", "/"),
        *("https://user:password@x", "HTTPS://X/", "https://packs.example/?a", "/a\nb"),
    ],
)
def test_label_that_is_no_registry(
    made: tuple[Bundle, Files], sound: bytes, refused: Refused, label: str
) -> None:
    packs = [p.model_dump(mode="json", exclude_none=True) for p in made[0].packs]
    packs[0]["registry"] = label
    refused(changed(sound, packs=packs), r"packs\.0\.registry")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(min_value=0), change=st.integers(min_value=1, max_value=255))
def test_any_byte_changed_is_noticed(
    made: tuple[Bundle, Files], sound: bytes, tmp_path: Path, at: int, change: int
) -> None:
    """All but the blobs' own bytes and checksums, which are checked when they are read."""
    content, _ = made
    raw = bytearray(sound)
    raw[at % len(raw)] ^= change
    file = tmp_path / "changed.mbundle"
    file.write_bytes(raw)
    try:
        opened = read_bundle(file)
    except MbpmError:
        return
    damaged = [
        b.sha256
        for b in content.blobs
        if hashlib.sha256(
            raw[opened.places[b.sha256] : opened.places[b.sha256] + b.size]
        ).hexdigest()
        != b.sha256
    ]
    assert len(damaged) == 1
