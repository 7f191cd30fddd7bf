"""The index of passages: what it finds, and that no question can break it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.knowledge import build_index, search
from specs.errors import IntegrityError
from specs.knowledge import Passage

PACKS = {
    "legal": [
        Passage("Leases", "A lease ends when its term does; notice is given in writing."),
        Passage("Wills", "A will names who inherits."),
    ],
    "medical": [
        Passage("Aspirin", "Aspirin thins the blood and lowers a fever."),
        Passage("Fever", "A temperature above 38 degrees. Größe Überfluß naïve."),
    ],
    "empty": [],
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("index") / "knowledge.sqlite"
    build_index(file, PACKS.items())
    return file


def test_the_best_passage_comes_first_with_its_pack(index: Path) -> None:
    first = search(index, "When does my lease end?")[0]
    assert (first.pack, first.title) == ("legal", "Leases")
    assert first.text == PACKS["legal"][0].text
    found = search(index, "aspirin against fever", 10)
    assert [f.title for f in found] == ["Aspirin", "Fever"]
    assert found[0].score > found[1].score > 0


def test_at_most_so_many(index: Path) -> None:
    assert len(search(index, "a who the in", 10)) > 2
    assert len(search(index, "a who the in", 2)) == 2


def test_case_and_accents_do_not_matter(index: Path) -> None:
    for word in ("NAIVE", "groß\u0065", "GROßE", "nai\u0308ve", "uberfluß"):
        assert search(index, word)[0].title == "Fever"


def test_names_of_packs_are_not_searched(index: Path) -> None:
    assert search(index, "medical") == []


@pytest.mark.parametrize(
    "question",
    [
        'lease" OR "x', "lease AND NOT lease", "NEAR(lease, 2)", "title:lease OR pack:lease",
        "lease*", "^lease", "{title text}: lease", "lease) OR (", "-lease", "lease + ends",
        "\0lease\0", "lease\ud800", "'; DROP TABLE passages; -- lease", "lease " * 10_000,
        '"""" lease', "lease \\", "lease ?1 :a @b $c",
    ],
)  # fmt: skip
def test_what_fts5_would_obey_is_only_words(index: Path, question: str) -> None:
    assert "Leases" in [f.title for f in search(index, question, 10)]


@pytest.mark.parametrize("question", ["", " ", '"', "\0", "?!", "* + - ^ : ( )", "zebra"])
def test_no_words_or_unknown_ones_find_nothing(index: Path, question: str) -> None:
    assert search(index, question) == []


@settings(max_examples=200, deadline=None)
@given(question=st.text(max_size=60))
def test_any_question_is_answered(index: Path, question: str) -> None:
    for found in search(index, question):
        assert found.pack in PACKS


def test_a_damaged_index_is_named(index: Path, tmp_path: Path) -> None:
    raw = index.read_bytes()
    for damaged in (b"", b"x" * 5000, raw[:5000], raw[:200] + b"\xff" * (len(raw) - 200)):
        file = tmp_path / "knowledge.sqlite"
        file.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=r"knowledge\.sqlite"):
            search(file, "lease")


def test_a_missing_index_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        search(tmp_path / "knowledge.sqlite", "lease")
