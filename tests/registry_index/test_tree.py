"""Reading a registry's tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_index import bundled
from registry_index.tree import Registry, blob_path, index_path, parse_index
from specs.errors import IntegrityError, MbpmError, NotFoundError, UsageError
from specs.index_line import IndexLine
from specs.names import check_name
from tests.support.packs import FINGERPRINT, tiny_base


def line(name: str = "legal", version: str = "1.0.0", **changes: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "name": name,
        "version": version,
        "domain": "law",
        "description": "Law",
        "license": "Apache-2.0",
        "base": {"name": "tiny", "fingerprint": FINGERPRINT},
        "manifest": "a" * 64,
        "manifest_size": 100,
        "size": 1000,
        "published": "2026-01-01T00:00:00Z",
    } | changes


def raw(*lines: object) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in lines)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "config.json").write_text('{"format":1,"name":"test"}')
    (tmp_path / "bases").mkdir()
    return Registry(tmp_path)


def put(registry: Registry, name: str, content: bytes) -> Path:
    file = registry.root / "index" / index_path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("name", "path"),
    [("a", "1/a"), ("ab", "2/ab"), ("abc", "3/a/abc"), ("abcd", "ab/cd/abcd"), ("a.b-c", "a./b-")],
)
def test_index_layout(name: str, path: str) -> None:
    expected = path if path.endswith(name) else f"{path}/{name}"
    assert index_path(name).as_posix() == expected


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "", "..", "A"])
def test_a_name_cannot_lead_out_of_the_tree(registry: Registry, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        index_path(name)
    with pytest.raises(UsageError):
        registry.lines(name)
    with pytest.raises(UsageError):
        registry.base(name)


@pytest.mark.parametrize("digest", ["", "../x", "A" * 64, "a" * 63, "a" * 64 + "\n", "/" * 64])
def test_a_digest_cannot_lead_out_of_the_tree(registry: Registry, digest: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        registry.blob_path(digest)


@given(st.from_regex(r"[a-z0-9._-]{1,12}", fullmatch=True))
def test_every_good_name_has_a_place_of_its_own_below_the_index(name: str) -> None:
    try:
        check_name(name)
    except ValueError:
        return
    path = index_path(name)
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert path.name == name


def test_what_is_written_is_read(registry: Registry) -> None:
    put(registry, "legal", raw(line(), line(version="1.1.0"), line(version="0.9.0", yanked=True)))
    put(registry, "ab", raw(line("ab")))
    put(registry, "a", b"")
    assert registry.name == "test"
    assert registry.names() == ["a", "ab", "legal"]
    assert [entry.version for entry in registry.lines("legal")] == ["1.0.0", "1.1.0", "0.9.0"]
    assert registry.lines("legal")[2].yanked
    assert registry.lines("a") == []
    assert blob_path("ab" * 32).as_posix() == "blobs/ab/" + "ab" * 32


def test_files_that_are_no_index_are_not_packs(registry: Registry) -> None:
    put(registry, "legal", raw(line()))
    for stray in ("index/legal", "index/le/ga/.legal.swp", "index/le/ga/README.md", "index/le/xx"):
        (registry.root / stray).write_text("stray")
    assert registry.names() == ["legal"]


def test_no_registry(tmp_path: Path) -> None:
    for ask in (
        lambda r: r.name,
        lambda r: r.names(),
        lambda r: r.lines("legal"),
        lambda r: r.bases(),
        lambda r: r.base("tiny"),
    ):
        with pytest.raises(NotFoundError, match="no registry at"):
            ask(Registry(tmp_path / "missing"))


def test_no_such_pack_or_base(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="no pack `legal` in the registry `test`"):
        registry.lines("legal")
    with pytest.raises(NotFoundError, match="no base `tiny` in the registry `test`"):
        registry.base("tiny")


@pytest.mark.parametrize(
    ("second", "rule"),
    [
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff", "is not UTF-8"),
        (raw(line("other")).strip(), "is about `other`, not `legal`"),
        (raw(line(version="1.0.0+build")).strip(), r"version 1.0.0\+build stands twice"),
        (raw(line(version="2.0.0", surprise=1)).strip(), "unknown key `surprise`"),
        (raw(line(version="2.0.0", manifest="zz")).strip(), "`manifest`"),
        (raw(line(version="2.0.0", format=0)).strip(), "`format`"),
        (b"[]", "object|dictionary"),
    ],
)
def test_a_malformed_line_is_named(registry: Registry, second: bytes, rule: str) -> None:
    file = put(registry, "legal", raw(line()) + second + b"\n" + raw(line(version="3.0.0")))
    with pytest.raises(IntegrityError, match=rule) as caught:
        registry.lines("legal")
    assert f"{file}, line 2" in caught.value.message


def test_a_line_of_a_newer_format_is_skipped_and_remembered(registry: Registry) -> None:
    future = {"format": 2, "name": "legal", "version": "2.0.0", "shape": "unknown"}
    put(registry, "legal", raw(line(), future, line(version="1.1.0"), {"format": 3}))
    index = registry.index("legal")
    assert [entry.version for entry in index.lines] == ["1.0.0", "1.1.0"]
    assert index.newer == ("2.0.0", "?")
    assert registry.lines("legal") == list(index.lines)


def test_a_file_cut_in_the_middle_of_a_line_is_malformed() -> None:
    whole = raw(line(), line(version="1.1.0"))
    assert len(parse_index(whole[:-1], "legal", "f").lines) == 2
    with pytest.raises(IntegrityError, match="line 2"):
        parse_index(whole[:-20], "legal", "f")


def test_line_ends_of_windows_are_read() -> None:
    assert parse_index(raw(line()).replace(b"\n", b"\r\n"), "legal", "f").lines


@given(st.binary(max_size=80))
def test_any_bytes_are_either_an_index_or_refused_by_line(noise: bytes) -> None:
    try:
        parse_index(noise, "legal", "file")
    except IntegrityError as error:
        assert error.message.startswith("file, line ")


versions = st.lists(
    st.tuples(*[st.integers(0, 20)] * 3).map(lambda v: "{}.{}.{}".format(*v)), unique=True
)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)


@given(versions, texts)
def test_lines_survive_the_round_trip_in_order(found: list[str], description: str) -> None:
    lines = [IndexLine.from_object(line(version=v, description=description), "test") for v in found]
    again = parse_index(b"".join(entry.canonical() for entry in lines), "legal", "file")
    assert list(again.lines) == lines


def test_base_cards(registry: Registry, tmp_path: Path) -> None:
    card = tiny_base(tmp_path / "files")
    for name in ("tiny", "other"):
        renamed = card.model_copy(update={"name": name})
        (registry.root / "bases" / f"{name}.json").write_bytes(renamed.canonical())
    (registry.root / "bases" / ".tmp.json").write_text("junk")
    (registry.root / "bases" / "README").write_text("junk")
    assert [c.name for c in registry.bases()] == ["other", "tiny"]
    assert registry.base("tiny") == card


def test_a_base_card_under_another_name_is_refused(registry: Registry, tmp_path: Path) -> None:
    card = tiny_base(tmp_path / "files")
    (registry.root / "bases" / "other.json").write_bytes(card.canonical())
    with pytest.raises(IntegrityError, match="is the card of `tiny`"):
        registry.base("other")


def test_a_newer_base_card_hides_no_other(registry: Registry, tmp_path: Path) -> None:
    card = tiny_base(tmp_path / "files")
    (registry.root / "bases" / "tiny.json").write_bytes(card.canonical())
    (registry.root / "bases" / "future.json").write_text('{"format": 2, "name": "future"}')
    assert registry.bases() == [card]
    with pytest.raises(MbpmError, match="has format 2"):
        registry.base("future")


def test_the_bundled_registry_is_sound() -> None:
    registry = bundled()
    assert registry.name == "bundled"
    fingerprints = {card.fingerprint for card in registry.bases()}
    for name in registry.names():
        index = registry.index(name)
        assert index.lines
        assert not index.newer
        for entry in index.lines:
            assert entry.base.fingerprint in fingerprints
            assert registry.blob_path(entry.manifest).stat().st_size == entry.manifest_size
