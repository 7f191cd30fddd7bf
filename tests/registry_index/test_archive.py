"""`.mbpack` archives: a round trip, and one test per attack, named after it."""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry_index import archive as archive_module
from registry_index.archive import archive_name, read_archive, write_archive
from registry_index.packing import build_manifest
from specs.blobs import CHUNK_BYTES
from specs.errors import IntegrityError, MbpmError, NotFoundError, UsageError
from specs.manifest import Manifest
from tests.support.packs import pack_folder

Refused = Callable[[bytes, str], None]
Pack = tuple[Manifest, dict[str, Path]]


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return build_manifest(pack_folder(tmp_path / "pack", "legal"))


@pytest.fixture
def sound(pack: Pack, tmp_path: Path) -> bytes:
    """The bytes of a good archive."""
    write_archive(*pack, tmp_path / "sound.mbpack")
    return (tmp_path / "sound.mbpack").read_bytes()


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Check that an archive is refused, by its structure or its bytes, and writes nothing."""

    def check(raw: bytes, rule: str) -> None:
        file = tmp_path / "evil.mbpack"
        file.write_bytes(raw)
        into = tmp_path / "into" / "deep"
        into.mkdir(parents=True, exist_ok=True)
        before = sorted(p for p in tmp_path.rglob("*"))
        with pytest.raises(IntegrityError, match=rule) as caught:
            read_archive(file).extract(into)
        assert str(file) in caught.value.message
        assert sorted(p for p in tmp_path.rglob("*")) == before

    return check


def members(pack: Pack) -> list[tuple[str, bytes]]:
    manifest, files = pack
    return [
        ("manifest.json", manifest.canonical()),
        *((b.path, files[b.path].read_bytes()) for b in manifest.blobs),
    ]


def zipped(
    entries: list[tuple[str | zipfile.ZipInfo, bytes]] | list[tuple[str, bytes]],
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """An archive as Python's own zip writer makes it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as writer:
        for name, data in entries:
            writer.writestr(name, data)
    return out.getvalue()


def test_round_trip(pack: Pack, tmp_path: Path) -> None:
    manifest, files = pack
    target = tmp_path / archive_name(manifest)
    write_archive(manifest, files, target)
    assert target.name == "legal-1.0.0.mbpack"
    opened = read_archive(target)
    assert opened.manifest == manifest
    into = tmp_path / "into"
    into.mkdir()
    extracted = opened.extract(into)
    assert set(extracted) == set(files)
    for name, file in extracted.items():
        assert file == into / name
        assert file.read_bytes() == files[name].read_bytes()


def test_the_same_pack_gives_the_same_bytes(pack: Pack, sound: bytes, tmp_path: Path) -> None:
    for file in pack[1].values():
        file.touch()
    write_archive(*pack, tmp_path / "again.mbpack")
    assert (tmp_path / "again.mbpack").read_bytes() == sound


def test_any_zip_program_can_read_one(pack: Pack, sound: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(sound)) as reader:
        assert reader.testzip() is None
        assert [(n, reader.read(n)) for n in reader.namelist()] == members(pack)


def test_a_plain_zip_of_the_right_files_is_an_archive(pack: Pack, tmp_path: Path) -> None:
    file = tmp_path / "made-elsewhere.mbpack"
    file.write_bytes(zipped(members(pack)))
    assert read_archive(file).manifest == pack[0]


def test_blobs_of_several_chunks(tmp_path: Path) -> None:
    large = bytes(range(256)) * (CHUNK_BYTES // 256) + b"more"
    folder = pack_folder(tmp_path / "pack", "legal", files={"LICENSE": large})
    manifest, files = build_manifest(folder)
    write_archive(manifest, files, tmp_path / "a.mbpack")
    (tmp_path / "into").mkdir()
    extracted = read_archive(tmp_path / "a.mbpack").extract(tmp_path / "into")
    assert extracted["LICENSE"].read_bytes() == large


def test_a_file_that_changes_while_it_is_packed(pack: Pack, tmp_path: Path) -> None:
    manifest, files = pack
    target = tmp_path / "out" / "a.mbpack"
    target.parent.mkdir()
    target.write_bytes(b"the old one")
    for change in (b"other bytes", files["README.md"].read_bytes() + b"more"):
        files["README.md"].write_bytes(change)
        with pytest.raises(IntegrityError, match=r"README\.md: changed while it was packed"):
            write_archive(manifest, files, target)
    assert [f.name for f in target.parent.iterdir()] == ["a.mbpack"]
    assert target.read_bytes() == b"the old one"


def test_a_pack_too_large_for_an_archive(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "MAX_ARCHIVE_BYTES", pack[0].size)
    with pytest.raises(UsageError, match="larger than"):
        write_archive(*pack, tmp_path / "a.mbpack")
    assert not (tmp_path / "a.mbpack").exists()


def test_no_such_archive(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        read_archive(tmp_path / "missing.mbpack")


def test_nothing_is_overwritten(pack: Pack, sound: bytes, tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    (into / "evals.json").write_text("mine")
    with pytest.raises(FileExistsError):
        read_archive(tmp_path / "sound.mbpack").extract(into)
    assert [f.name for f in into.iterdir()] == ["evals.json"]
    assert (into / "evals.json").read_text() == "mine"


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "../../../../etc/cron.d/evil", "/etc/passwd", "a/../../evil", "evil/"),
        *("..\\evil", "C:\\evil", "\\\\server\\share", "./README.md", "README.md/"),
        *("README.md\0.txt", "\x1b[2Jevil", "readme.md", "pack.toml", ".bashrc"),
    ],
    ids=ascii,
)
def test_path_traversal_and_foreign_names(pack: Pack, refused: Refused, name: str) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = name
    refused(zipped([*members(pack), (info, b"evil")]), "is not a file of a pack")


def test_traversal_in_the_first_member(pack: Pack, refused: Refused) -> None:
    refused(zipped([("../manifest.json", b"{}")]), "begins with member '../manifest.json'")


def test_traversal_in_the_manifest(pack: Pack, refused: Refused) -> None:
    raw = pack[0].canonical().replace(b'"README.md"', b'"../evil.md"')
    refused(zipped([("manifest.json", raw)]), "plain file name")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_member(pack: Pack, refused: Refused) -> None:
    refused(zipped([*members(pack), ("README.md", b"other")]), "`README.md` stands twice")
    refused(zipped([*members(pack), members(pack)[0]]), r"`manifest\.json` stands twice")


def test_compressed_member(pack: Pack, refused: Refused) -> None:
    refused(zipped(members(pack), zipfile.ZIP_DEFLATED), "is compressed")


def test_zip_bomb(pack: Pack, refused: Refused) -> None:
    info = zipfile.ZipInfo("LICENSE")
    info.compress_type = zipfile.ZIP_DEFLATED
    refused(zipped([*members(pack), (info, b"\0" * 50_000_000)]), "`LICENSE` is compressed")


def test_overlapping_members_bomb(pack: Pack, sound: bytes, refused: Refused) -> None:
    """Two directory entries that share the bytes of one member (Fifield, 2019)."""
    start, size, count = directory(sound)
    entries = split_directory(sound[start : start + size])
    twice = b"".join([*entries, entries[-1]])
    refused(sound[:start] + twice + end(count + 1, len(twice), start), "directory does not end")


def test_symlink_member(pack: Pack, refused: Refused) -> None:
    info = zipfile.ZipInfo("LICENSE")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(zipped([*members(pack), (info, b"/etc/passwd")]), "`LICENSE` is not a plain file")


def test_device_and_folder_members(pack: Pack, refused: Refused) -> None:
    for attributes in (stat.S_IFCHR << 16, stat.S_IFIFO << 16, stat.S_IFDIR << 16, 0x10):
        info = zipfile.ZipInfo("LICENSE")
        info.external_attr = attributes
        refused(zipped([*members(pack), (info, b"")]), "`LICENSE` is not a plain file")


def test_encrypted_member(sound: bytes, refused: Refused) -> None:
    refused(patched(sound, 6, struct.pack("<H", 1)), "uses a feature of zip")


def test_data_descriptor(sound: bytes, refused: Refused) -> None:
    refused(patched(sound, 6, struct.pack("<H", 8)), "uses a feature of zip")


def test_zip64_and_other_extra_fields(pack: Pack, refused: Refused) -> None:
    info = zipfile.ZipInfo("LICENSE")
    info.extra = struct.pack("<HHQ", 1, 8, 1)
    refused(zipped([*members(pack), (info, b"x")]), "uses a feature of zip")


def test_member_comment(pack: Pack, refused: Refused) -> None:
    info = zipfile.ZipInfo("LICENSE")
    info.comment = b"hidden"
    refused(zipped([*members(pack), (info, b"x")]), "uses a feature of zip")


def test_prepended_data(sound: bytes, refused: Refused) -> None:
    refused(b"#!/bin/sh\nevil\n" + sound, "something else than a member at byte 0")


def test_trailing_data(sound: bytes, refused: Refused) -> None:
    refused(sound + b"evil", "data after its end")


def test_archive_comment(sound: bytes, refused: Refused) -> None:
    refused(sound[:-2] + struct.pack("<H", 4) + b"evil", "directory does not end")


def test_second_archive_appended(sound: bytes, refused: Refused) -> None:
    refused(sound + sound, "data after its end")


def test_data_between_members(pack: Pack, sound: bytes, refused: Refused) -> None:
    at = sound.index(b"PK\3\4", 4)
    refused(sound[:at] + b"evil" + sound[at:], f"something else than a member at byte {at:,}")


def test_directory_that_names_another_file(sound: bytes, refused: Refused) -> None:
    """One program would list the one name, another extract the other."""
    at = sound.rindex(b"README.md")
    refused(sound[:at] + b"README.sh" + sound[at + 9 :], r"does not list member `README\.md`")


def test_directory_that_points_elsewhere(sound: bytes, refused: Refused) -> None:
    start, _, _ = directory(sound)
    raw = bytearray(sound)
    raw[start + 42 : start + 46] = struct.pack("<I", 7)
    refused(bytes(raw), "describes member `manifest.json` otherwise")


def test_directory_with_another_checksum(sound: bytes, refused: Refused) -> None:
    start, _, _ = directory(sound)
    refused(patched(sound, start + 16, b"evil"), "describes member `manifest.json` otherwise")


def test_directory_that_leaves_a_member_out(sound: bytes, refused: Refused) -> None:
    start, size, count = directory(sound)
    fewer = b"".join(split_directory(sound[start : start + size])[:-1])
    refused(sound[:start] + fewer + end(count - 1, len(fewer), start), "directory|truncated")


def test_size_that_lies(sound: bytes, refused: Refused) -> None:
    huge = struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF)
    refused(patched(sound, 18, huge), "larger than|truncated")
    at = sound.index(b"PK\3\4", 4)
    refused(patched(sound, at + 18, huge), "truncated")


def test_oversized_manifest(refused: Refused) -> None:
    refused(zipped([("manifest.json", b" " * (5 << 20))]), "larger than the 4,194,304 bytes")


def test_oversized_archive(sound: bytes, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_ARCHIVE_BYTES", len(sound) - 1)
    refused(sound, "more than the")


def test_member_larger_than_the_manifest_says(pack: Pack, refused: Refused) -> None:
    entries = [(n, d + b"more" if n == "README.md" else d) for n, d in members(pack)]
    refused(zipped(entries), r"`README\.md` has .* bytes, and the manifest says")


def test_member_with_other_bytes_of_the_same_size(pack: Pack, refused: Refused) -> None:
    entries = [(n, bytes(len(d)) if n == "README.md" else d) for n, d in members(pack)]
    refused(zipped(entries), r"bytes of `README\.md` do not match")


def test_member_that_the_manifest_does_not_know(pack: Pack, refused: Refused) -> None:
    refused(zipped([*members(pack), ("LICENSE", b"x")]), "`LICENSE` is not in its manifest")


def test_member_that_is_missing(pack: Pack, refused: Refused) -> None:
    refused(zipped(members(pack)[:-1]), r"`routing\.safetensors` of its manifest is missing")


def test_manifest_that_does_not_come_first(pack: Pack, refused: Refused) -> None:
    refused(zipped(members(pack)[::-1]), "begins with member")


def test_manifest_that_is_not_canonical(pack: Pack, refused: Refused) -> None:
    """Two spellings of one manifest would be two identities of one pack."""
    (name, raw), *rest = members(pack)
    refused(zipped([(name, raw.replace(b",", b", ", 1)), *rest]), "not canonical JSON")


def test_wrong_checksum_of_the_manifest(pack: Pack, sound: bytes, refused: Refused) -> None:
    crc = struct.pack("<I", zlib.crc32(pack[0].canonical()))
    assert sound.count(crc) == 2
    refused(sound.replace(crc, b"evil"), "checksum")


def test_flood_of_members(sound: bytes, refused: Refused) -> None:
    flood = b"".join(
        struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
        for _ in range(100_000)
    )
    refused(sound[: directory(sound)[0]] + flood, "is not a file of a pack")


@pytest.mark.parametrize(
    "raw", [b"", b"PK", b"PK\5\6" + bytes(18), b"not a zip at all", b"\0" * 64]
)
def test_not_an_archive(refused: Refused, raw: bytes) -> None:
    refused(raw, "truncated|something else than a member")


def test_every_truncation_is_refused(sound: bytes, tmp_path: Path) -> None:
    file = tmp_path / "cut.mbpack"
    for length in range(0, len(sound), 7):
        file.write_bytes(sound[:length])
        with pytest.raises(IntegrityError):
            read_archive(file)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_flipped_byte_changes_nothing_or_is_refused(
    sound: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    position = data.draw(st.integers(0, len(sound) - 1))
    raw = patched(sound, position, bytes([sound[position] ^ (1 << data.draw(st.integers(0, 7)))]))
    (folder / "a.mbpack").write_bytes(raw)
    (folder / "into").mkdir()
    try:
        opened = read_archive(folder / "a.mbpack")
        files = opened.extract(folder / "into")
    except MbpmError:
        assert list((folder / "into").iterdir()) == []
        return
    for blob in opened.manifest.blobs:
        assert hashlib.sha256(files[blob.path].read_bytes()).hexdigest() == blob.sha256


def patched(raw: bytes, at: int, data: bytes) -> bytes:
    return raw[:at] + data + raw[at + len(data) :]


def directory(raw: bytes) -> tuple[int, int, int]:
    """Start, size and number of entries of the central directory."""
    count, size, start = struct.unpack("<H2I", raw[-12:-2])
    return start, size, count


def end(count: int, size: int, start: int) -> bytes:
    return struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, size, start, 0)


def split_directory(raw: bytes) -> list[bytes]:
    return [b"PK\1\2" + part for part in raw.split(b"PK\1\2")[1:]]
