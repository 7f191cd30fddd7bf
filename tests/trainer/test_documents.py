"""Text and Markdown as training pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from specs.errors import UsageError
from trainer.data.documents import (
    BLOCK_PASSAGES,
    FILES_AS_GROUPS,
    PASSAGE_CHARS,
    definitions,
    split_passages,
)
from trainer.data.markup import split_sections
from trainer.data.reading import read_dataset

LONG = "The clause names the parties and their duties in full. " * 200


def test_a_heading_is_asked_about_and_answered_by_its_text(tmp_path: Path) -> None:
    file = tmp_path / "guide.md"
    text = "The tenant pays on the first working day of every month."
    file.write_text(f"# Lease guide\n\n## Rent\n\n{text}\n")
    (example,) = read_dataset(file)
    assert example.messages[0].content == "What does the section «Rent» of «Lease guide» say?"
    assert (example.answer, example.kind) == (text, "section")


def test_passages_continue_each_other(tmp_path: Path) -> None:
    file = tmp_path / "book_one.txt"
    file.write_text(LONG)
    examples = read_dataset(file)
    assert all(
        e.messages[0].content.startswith("Continue this passage of «book one»:") for e in examples
    )
    assert all(len(e.answer) <= PASSAGE_CHARS for e in examples)
    assert examples[1].messages[0].content.endswith(examples[0].answer)


def test_no_passage_of_a_single_book_stands_in_two_groups(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text("".join(f"Sentence number {i} says something new. " for i in range(900)))
    owner: dict[str, str] = {}
    examples = read_dataset(file)
    for example in examples:
        for text in (example.messages[0].content.split("\n\n", 1)[1], example.answer):
            assert owner.setdefault(text, example.group) == example.group
    assert len({e.group for e in examples}) > 900 * 35 / PASSAGE_CHARS / BLOCK_PASSAGES / 2


def test_of_many_documents_each_is_a_group(tmp_path: Path) -> None:
    for number in range(FILES_AS_GROUPS):
        (tmp_path / f"{number}.txt").write_text(LONG)
    groups = {e.group for e in read_dataset(tmp_path)}
    assert groups == {f"{number}.txt" for number in range(FILES_AS_GROUPS)}


def test_code_fences_and_underlined_headings() -> None:
    fenced = ["intro", "", "```sh", "# not a heading", "```", ""]
    lines = ["Title", "=====", *fenced, "Part", "----", "body ##", "", "### Sub ###", "end"]
    title, sections = split_sections(lines, markdown=True)
    assert title == "Title"
    assert [(s.heading, s.text.split("\n")[0]) for s in sections] == [
        ("Title", "intro"),
        ("Part", "body ##"),
        ("Sub", "end"),
    ]
    assert "# not a heading" in sections[0].text


def test_a_hash_in_plain_text_is_text() -> None:
    title, sections = split_sections(["# not markdown", "text"], markdown=False)
    assert (title, len(sections)) == ("", 1)


def test_a_text_without_breaks_is_still_cut() -> None:
    passages = split_passages("x" * (10 * PASSAGE_CHARS))
    assert len(passages) == 5
    assert sum(map(len, passages)) == 10 * PASSAGE_CHARS


@pytest.mark.parametrize("text", ["", "   \n\n", "One short line"])
def test_a_document_with_nothing_to_learn(tmp_path: Path, text: str) -> None:
    file = tmp_path / "short.txt"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"short\.txt: expected at least two sentences"):
        read_dataset(file)


def test_a_document_in_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "latin.md"
    file.write_bytes("# Caf\u00e9\n".encode("latin1"))
    with pytest.raises(UsageError, match="byte 0xe9 at position 5"):
        read_dataset(file)


@pytest.mark.parametrize(
    ("passage", "term", "answer"),
    [
        (
            "In this act, “Lessor” means a person who lets a thing. More follows.",
            "Lessor",
            "“Lessor” means a person who lets a thing.",
        ),
        (
            'The "Service Period" shall mean the twelve months after signing.',
            "Service Period",
            "“Service Period” shall mean the twelve months after signing.",
        ),
        ("**Estoppel**: a bar to denying what one said before", "Estoppel", "A bar to denying"),
        ("- **Tort** \u2013 a wrong for which one can be sued", "Tort", "A wrong for which"),
        ("**Copyleft** is a way of licensing that stays free.", "Copyleft", "Is a way of"),
    ],
)
def test_terms_that_the_text_itself_explains(passage: str, term: str, answer: str) -> None:
    (example,) = definitions(passage, "g")
    assert term in example.messages[0].content
    assert answer in example.answer
    assert (example.kind, example.group) == ("definition", "g")


@pytest.mark.parametrize(
    "passage",
    [
        "He said “no” and is gone. It means a lot to many people here.",
        "**Note**: see below.",
        "The lessor means well, as everybody knows by now.",
        "“Yes. No” means nothing at all in this place here.",
    ],
)
def test_what_only_looks_like_a_definition(passage: str) -> None:
    assert list(definitions(passage, "g")) == []


def test_a_heading_that_is_a_question_is_asked_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "faq.md"
    file.write_text("# FAQ\n\n## Who pays the rent?\n\nThe lessee pays it, on the first day.\n")
    (example,) = read_dataset(file)
    assert example.messages[0].content == "Who pays the rent?"
