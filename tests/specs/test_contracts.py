"""Documents that are refused, and canonical JSON that does not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from specs.base_card import BaseCard
from specs.blobs import CHUNK_BYTES, Blob
from specs.errors import IntegrityError, MbpmError, NotFoundError
from specs.evals import Evals
from specs.generation import Generation
from specs.manifest import REQUIRED_FILES, Manifest
from specs.model import MAX_DOCUMENT_BYTES, Contract, canonical_json, load_json
from specs.pack_toml import read_pack_toml
from tests.support.packs import evals, pack_toml, tiny_base


def document(**changes: Any) -> dict[str, Any]:
    blobs = [Blob.of_bytes(name, b"x").model_dump(mode="json") for name in sorted(REQUIRED_FILES)]
    return pack_toml("legal") | {"blobs": blobs} | changes


def refused(value: object, rule: str, kind: type[Contract] = Manifest) -> IntegrityError:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(IntegrityError, match=rule) as caught:
        kind.parse(raw, "manifest.json of legal")
    assert "manifest.json of legal" in caught.value.message
    return caught.value


def test_unknown_manifest_key() -> None:
    refused(document(post_install="rm -rf /"), "unknown key `post_install`")


def test_unknown_key_inside_a_blob() -> None:
    value = document()
    value["blobs"][0]["url"] = "https://example.org"
    refused(value, r"unknown key `blobs.0.url`")


def test_missing_key() -> None:
    value = document()
    del value["base"]
    refused(value, "`base` is missing")


def test_key_that_stands_twice() -> None:
    raw = json.dumps(document())[:-1] + ', "name": "other"}'
    refused(raw.encode(), "'name' stands twice")


@pytest.mark.parametrize(
    ("model", "value"),
    [
        (Manifest, document()),
        (Evals, json.loads(evals("legal").canonical())),
        (Generation, {"number": 1, "created": "", "command": ""}),
    ],
)
def test_newer_format_is_refused_by_name_before_anything_else(
    model: type[Contract], value: dict[str, Any]
) -> None:
    raw = json.dumps({**value, "format": 2, "a key of the future": []}).encode()
    with pytest.raises(
        MbpmError, match="has format 2, and this version of mbpm reads format 1"
    ) as e:
        model.parse(raw, "a file")
    assert e.value.hint is not None
    assert "upgrade" in e.value.hint


@pytest.mark.parametrize("format_", [0, "1", None, 1.0, True])
def test_format_that_is_no_format(format_: Any) -> None:
    refused(document(format=format_), "`format`")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"name": "../evil"}, "`name`"),
        ({"name": "Legal"}, "`name`"),
        ({"version": "1"}, "`version`"),
        ({"version": 1}, "`version`"),
        ({"requires": {"other": "not a version"}}, "`requires"),
        ({"requires": {"../x": "*"}}, "`requires"),
        ({"description": ""}, "`description`"),
        ({"description": "x" * 2001}, "`description`"),
        ({"blobs": []}, "`blobs`"),
        ({"recipe": "abc"}, "`recipe`"),
        ({"adapter": {"activation": "never", "rank": 1, "alpha": 1, "modules": 1}}, "activation"),
        ({"adapter": {"activation": "full", "rank": 10**9, "alpha": 1, "modules": 1}}, "rank"),
        ({"adapter": {"activation": "full", "rank": "8", "alpha": 1, "modules": 1}}, "rank"),
    ],
)
def test_bad_field_is_named(changes: dict[str, Any], rule: str) -> None:
    refused(document(**changes), rule)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("../../etc/passwd", "plain file name"),
        ("/etc/passwd", "plain file name"),
        ("a\\b", "plain file name"),
        (".bashrc", "plain file name"),
        ("run.py", "not a file of a pack"),
    ],
)
def test_blob_path_that_is_no_file_of_a_pack(path: str, rule: str) -> None:
    value = document()
    value["blobs"][0]["path"] = path
    refused(value, rule)


def test_two_blobs_with_one_path() -> None:
    value = document()
    value["blobs"].append(value["blobs"][0])
    refused(value, "the same path")


def test_required_blob_is_missing() -> None:
    value = document()
    value["blobs"] = [b for b in value["blobs"] if b["path"] != "evals.json"]
    refused(value, "'evals.json' is missing")


@pytest.mark.parametrize("size", [CHUNK_BYTES + 1, 0, -1, 1 << 41])
def test_blob_whose_size_does_not_fit_its_chunks(size: int) -> None:
    value = document()
    value["blobs"][0]["size"] = size
    refused(value, "blobs.0")


def test_document_that_is_too_large() -> None:
    refused(b" " * (MAX_DOCUMENT_BYTES + 1), "longer than the")


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"NaN", b"[1e999]", b"[" * 100_000])
def test_what_is_not_json(raw: bytes) -> None:
    refused(raw, "JSON|UTF-8|number|nested")


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"text"', b"1"])
def test_json_that_is_not_an_object(raw: bytes) -> None:
    refused(raw, "object|dictionary")


def test_many_keys_with_one_twice_are_refused_quickly() -> None:
    keys = ",".join(f'"{i}":0' for i in [*range(300_000), 299_999])
    refused(f"{{{keys}}}".encode(), "'299999' stands twice")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_in_evals(value: float) -> None:
    raw = json.loads(evals("legal").canonical())
    raw["metrics"][0]["gain_low"] = value
    with pytest.raises(IntegrityError):
        Evals.from_object(raw, "evals.json")
    refused(json.dumps(raw).encode(), "not a JSON number", Evals)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_any_json_is_either_a_manifest_or_refused(value: object) -> None:
    with pytest.raises(MbpmError):
        Manifest.parse(json.dumps(value).encode(), "noise")


@given(st.binary(max_size=60))
def test_any_bytes_are_either_json_or_refused(raw: bytes) -> None:
    try:
        load_json(raw, "noise")
    except IntegrityError as error:
        assert error.message.startswith("noise: ")


@given(st.dictionaries(st.text(alphabet="abc\u00e9", min_size=1), st.integers(), max_size=5))
def test_canonical_json_does_not_depend_on_order(value: dict[str, int]) -> None:
    shuffled = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(shuffled)
    assert json.loads(canonical_json(value)) == value


def test_canonical_json_of_a_manifest_is_stable(tmp_path: Path) -> None:
    manifest = Manifest.from_object(document(), "a test")
    again = Manifest.parse(manifest.canonical(), "again")
    assert again == manifest
    assert again.canonical() == manifest.canonical()
    # The identity of every published pack hangs on these bytes: they may never change.
    assert manifest.digest() == ("3abbb87269dfda6b1ef020b1910dd29062c72f9bd5606692bddd1fcf04f7f709")
    card = tiny_base(tmp_path)
    assert BaseCard.parse(card.canonical(), "card") == card


def write_toml(folder: Path, content: bytes | dict[str, Any]) -> Path:
    raw = content if isinstance(content, bytes) else tomli_w.dumps(content).encode()
    (folder / "pack.toml").write_bytes(raw)
    return folder


def test_pack_toml_round_trip(tmp_path: Path) -> None:
    value = pack_toml("legal", requires={"law": "^1.2"}, gates={"min_gain": 0.5})
    pack = read_pack_toml(write_toml(tmp_path, value))
    assert (pack.name, pack.requires, pack.gates.min_gain) == ("legal", {"law": "^1.2"}, 0.5)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"name = ", "is not TOML"),
        (b"a = 1\na = 2", "is not TOML"),
        (b"\xff", "is not UTF-8"),
        (b"a = " + b"[" * 5000, "is not TOML"),
        (pack_toml("legal", nonsense=1), "unknown key `nonsense`"),
        (pack_toml("legal", gates={"min_gain": -1.0}), "gates.min_gain"),
        (pack_toml("legal", gates={"min_gain": float("nan")}), "gates.min_gain|cannot express"),
        (pack_toml("legal", gates={"min_gain": float("-inf")}), "gates.min_gain|cannot express"),
        (b"created = 2026-01-01", "cannot express"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_bad_pack_toml(tmp_path: Path, content: bytes | dict[str, Any], rule: str) -> None:
    with pytest.raises(IntegrityError, match=rule) as caught:
        read_pack_toml(write_toml(tmp_path, content))
    assert "pack.toml" in caught.value.message


def test_folder_without_pack_toml(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"it has no pack\.toml"):
        read_pack_toml(tmp_path)
    with pytest.raises(NotFoundError, match=r"it has no pack\.toml"):
        read_pack_toml(tmp_path / "missing")
