"""Names that are safe as file names everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.names import check_file_name, check_name


@pytest.mark.parametrize("name", ["a", "medical", "qwen2.5-0.5b", "a_b", "x" * 64, "3d", "a-b.c_d"])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "A", "-a", "a-", ".a", "a.", "a..b", "..", "a/b", "a\\b", "a b", "x" * 65),
        *("é", "a\n", "a\0", "con", "nul.txt", "com1", "lpt9.pack", "auto", "none", "base"),
        *("\u0430bc", "a\u200bb"),
    ],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"name"):
        check_name(name)


@pytest.mark.parametrize(
    "name", ["", ".hidden", "../x", "a/b", "a\\b", "a..b", "a\n", "/etc/passwd", "C:x", "x" * 101]
)
def test_bad_file_names(name: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        check_file_name(name)


@given(st.text(alphabet="abz09._-/\\ A\n", max_size=8))
def test_what_is_accepted_cannot_leave_a_folder(name: str) -> None:
    try:
        check_name(name)
    except ValueError:
        return
    assert name
    assert not set(name) & set("/\\ \nA")
    assert name not in (".", "..")
    assert ".." not in name
