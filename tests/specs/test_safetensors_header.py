"""Safetensors files made to hurt a reader: one test per attack."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from specs.errors import IntegrityError
from specs.safetensors_header import MAX_HEADER_BYTES, read_header
from tests.support.packs import safetensors_bytes

Refused = Callable[[bytes, str], None]


def tensor(start: int, end: int, **changes: Any) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]} | changes


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Check that a file is refused with a message that names it and the rule."""

    def check(raw: bytes, rule: str) -> None:
        file = tmp_path / "evil.safetensors"
        file.write_bytes(raw)
        with pytest.raises(IntegrityError, match=rule) as caught:
            read_header(file)
        assert str(file) in caught.value.message
        assert caught.value.exit_code == 5

    return check


def test_a_sound_file_reads_as_the_reference_library_reads_it(tmp_path: Path) -> None:
    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.zeros((4, 1), dtype=np.float16),
        "scalar": np.array(7, dtype=np.int64),
        "empty": np.zeros((0, 5), dtype=np.float32),
    }
    file = tmp_path / "good.safetensors"
    file.write_bytes(save(tensors, metadata={"made by": "a test"}))
    header = read_header(file)
    assert header.metadata == {"made by": "a test"}
    raw = file.read_bytes()
    with safe_open(file, "np") as reference:
        assert set(header.tensors) == set(reference.keys())
        for name, info in header.tensors.items():
            expected = reference.get_tensor(name)
            assert info.shape == expected.shape
            data = raw[header.data_start + info.start : header.data_start + info.end]
            assert data == expected.tobytes()


def test_huge_header_is_refused_before_it_is_read(refused: Refused) -> None:
    refused(safetensors_bytes({}, length=2**63), "header of")
    refused(safetensors_bytes({}, length=MAX_HEADER_BYTES + 1), "header of")


def test_header_length_beyond_the_file(refused: Refused) -> None:
    refused(safetensors_bytes({}, length=3), "truncated")


@pytest.mark.parametrize("length", [0, 1, 7])
def test_too_short_to_hold_a_header(refused: Refused, length: int) -> None:
    refused(b"\0" * length, "too short")


def test_truncated_data(refused: Refused) -> None:
    refused(safetensors_bytes({"a": tensor(0, 4)}, b"abc"), "outside the file")


def test_trailing_data(refused: Refused) -> None:
    refused(safetensors_bytes({"a": tensor(0, 4)}, b"abcdHIDDEN"), "the file holds 10")


def test_overlapping_tensors(refused: Refused) -> None:
    raw = safetensors_bytes({"a": tensor(0, 4), "b": tensor(2, 6)}, b"abcdef")
    refused(raw, "`b` overlaps")


def test_gap_between_tensors(refused: Refused) -> None:
    raw = safetensors_bytes({"a": tensor(0, 2), "b": tensor(4, 6)}, b"abcdef")
    refused(raw, "gap before tensor `b`")


def test_gap_before_the_first_tensor(refused: Refused) -> None:
    refused(safetensors_bytes({"a": tensor(2, 4)}, b"abcd"), "gap before tensor `a`")


@pytest.mark.parametrize(
    "offsets", [[0, 100], [100, 200], [4, 0], [2**47, 2**47 + 4]], ids=lambda o: str(o)
)
def test_offsets_out_of_range(refused: Refused, offsets: list[int]) -> None:
    raw = safetensors_bytes({"a": tensor(0, 4, data_offsets=offsets)}, b"abcd")
    refused(raw, "offsets outside the file")


@pytest.mark.parametrize(
    "offsets", [[-4, 0], [0], [0, 4, 8], [0, 4.0], ["0", "4"], [True, 4], None, [0, 2**70]]
)
def test_malformed_offsets(refused: Refused, offsets: Any) -> None:
    raw = safetensors_bytes({"a": tensor(0, 4, data_offsets=offsets)}, b"abcd")
    refused(raw, "malformed offsets")


@pytest.mark.parametrize(
    "shape", [[-4], [4.0], ["4"], 4, [2**60], [1] * 9, [True, 4], {"0": 4}, [[4]]]
)
def test_malformed_shape(refused: Refused, shape: Any) -> None:
    refused(safetensors_bytes({"a": tensor(0, 4, shape=shape)}, b"abcd"), "malformed shape")


def test_size_that_is_not_the_shape_times_the_dtype(refused: Refused) -> None:
    refused(safetensors_bytes({"a": tensor(0, 4, shape=[5])}, b"abcd"), "not its shape's")
    refused(safetensors_bytes({"a": tensor(0, 4, dtype="F32")}, b"abcd"), "not its shape's")


def test_shape_whose_product_overflows_64_bits(refused: Refused) -> None:
    raw = safetensors_bytes({"a": tensor(0, 4, shape=[2**33, 2**33])}, b"abcd")
    refused(raw, "not its shape's")


@pytest.mark.parametrize("dtype", ["F8", "", 4, None, ["F32"], "f32"])
def test_unsupported_dtype(refused: Refused, dtype: Any) -> None:
    refused(safetensors_bytes({"a": tensor(0, 4, dtype=dtype)}, b"abcd"), "unsupported dtype")


def test_tensor_name_that_stands_twice(refused: Refused) -> None:
    entry = json.dumps(tensor(0, 4))
    raw = safetensors_bytes(f'{{"a":{entry},"a":{entry}}}'.encode(), b"abcd")
    refused(raw, "'a' stands twice")


def test_duplicate_key_inside_a_tensor(refused: Refused) -> None:
    entry = '{"dtype":"U8","shape":[4],"data_offsets":[0,9],"data_offsets":[0,4]}'
    refused(safetensors_bytes(f'{{"a":{entry}}}'.encode(), b"abcd"), "stands twice")


@pytest.mark.parametrize("entry", [[], 4, {}, tensor(0, 4, extra=1)], ids=str)
def test_entry_with_other_keys(refused: Refused, entry: Any) -> None:
    refused(safetensors_bytes({"a": entry}, b"abcd"), "needs dtype, shape and data_offsets")


@pytest.mark.parametrize("metadata", [[], {"a": 1}, {"a": None}, "text"], ids=str)
def test_metadata_that_is_not_text(refused: Refused, metadata: Any) -> None:
    refused(safetensors_bytes({"__metadata__": metadata}), "__metadata__")


@pytest.mark.parametrize(
    "name", ["a\x1b[2Jb", "a\nb", "\u202eb", "", "x" * 201, "\ud800"], ids=ascii
)
def test_tensor_name_that_would_garble_a_terminal(refused: Refused, name: str) -> None:
    refused(safetensors_bytes({name: tensor(0, 4)}, b"abcd"), "name")


@pytest.mark.parametrize("raw", [b"[]", b"null", b"4", b'"text"'])
def test_header_that_is_not_an_object(refused: Refused, raw: bytes) -> None:
    refused(safetensors_bytes(raw), "not a JSON object")


@pytest.mark.parametrize("raw", [b"", b"{", b"{} {}", b"{'a': 1}", b'{"a": NaN}', b'{"a": 1e999}'])
def test_header_that_is_not_json(refused: Refused, raw: bytes) -> None:
    refused(safetensors_bytes(raw), "JSON|number")


def test_header_that_is_not_utf8(refused: Refused) -> None:
    refused(safetensors_bytes(b'{"\xff": 1}'), "not UTF-8")


@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_nested_json_bomb(refused: Refused, bracket: str) -> None:
    refused(safetensors_bytes((bracket * 200_000).encode()), "nested too deeply|not JSON")


def test_integer_of_a_million_digits(refused: Refused) -> None:
    raw = safetensors_bytes(b'{"a":{"dtype":"U8","shape":[' + b"9" * 1_000_000 + b"]}}")
    refused(raw, "evil")


def test_many_names_with_one_twice_is_refused_quickly(refused: Refused) -> None:
    keys = ",".join(f'"{i}":0' for i in [*range(200_000), 199_999])
    refused(safetensors_bytes(f"{{{keys}}}".encode()), "'199999' stands twice")


def test_a_lying_header_allocates_nothing(tmp_path: Path) -> None:
    file = tmp_path / "evil.safetensors"
    entry = {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}
    file.write_bytes(safetensors_bytes({"a": entry}))
    tracemalloc.start()
    with pytest.raises(IntegrityError):
        read_header(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@given(st.data())
def test_a_flipped_byte_never_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(save({"a": np.ones(3, np.float32), "b": np.ones((2, 2), np.float16)}))
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    file.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        header = read_header(file)
    except IntegrityError:
        return
    ends = sum(t.end - t.start for t in header.tensors.values())
    assert header.data_start + ends == file.stat().st_size
