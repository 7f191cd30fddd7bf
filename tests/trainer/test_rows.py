"""The forms a row may have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.errors import UsageError
from trainer.data.example import Example, Message
from trainer.data.rows import examples_of


def one(row: dict[str, Any]) -> Example:
    (example,) = examples_of(row, "data: line 1")
    return example


def contents(example: Example) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in example.messages]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "response": "a"},
        {"prompt": "q", "completion": "a"},
        {"instruction": "q", "output": "a"},
        {"instruction": "q", "input": "", "output": "a"},
        {"instruction": "q", "context": None, "response": "a"},
        {"question": "q", "answer": "a", "id": 7, "tags": ["x"]},
        {" Question ": "q", "ANSWER": "a"},
        {"query": "q", "response": "a"},
        {"input": "q", "output": "a"},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    ],
)
def test_a_question_and_its_answer_under_the_usual_names(row: dict[str, Any]) -> None:
    assert contents(one(row)) == [("user", "q"), ("assistant", "a")]


def test_what_a_question_is_about_stands_below_it() -> None:
    row = {"instruction": "Shorten this.", "input": "A long text", "output": "Text", "system": "S"}
    assert contents(one(row)) == [
        ("system", "S"),
        ("user", "Shorten this.\n\nA long text"),
        ("assistant", "Text"),
    ]
    assert one({**row, "input": "Another"}).group != one(row).group


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"question": "q", "chosen": "good", "rejected": "bad"},
        {
            "chosen": [turn("user", "q"), turn("assistant", "good")],
            "rejected": [turn("user", "q"), turn("assistant", "bad")],
        },
        {
            "prompt": [turn("user", "q")],
            "chosen": [turn("assistant", "good")],
            "rejected": [turn("assistant", "bad")],
        },
        {
            "prompt": "q",
            "chosen": [turn("user", "q"), turn("assistant", "good")],
            "rejected": [turn("user", "q"), turn("assistant", "bad")],
        },
    ],
)
def test_preference_pairs_in_every_form_trl_takes(row: dict[str, Any]) -> None:
    example = one(row)
    assert contents(example) == [("user", "q"), ("assistant", "good")]
    assert (example.answer, example.rejected) == ("good", "bad")
    assert example.group == one({"prompt": "q", "response": "x"}).group


def test_a_preference_pair_after_several_turns() -> None:
    before = [turn("user", "a"), turn("assistant", "b"), turn("user", "c")]
    row = {
        "chosen": [*before, turn("assistant", "good")],
        "rejected": [*before, turn("assistant", "bad")],
    }
    assert len(one(row).messages) == 4


def test_plain_text_continues_itself() -> None:
    text = "The clause names the parties and their duties. " * 60
    first, *others = examples_of({"text": text}, "data: line 1")
    assert others
    assert first.messages[0].content.startswith("Continue this passage:\n\nThe clause")
    assert {e.group for e in others} == {first.group}
    assert examples_of({"text": "Too short."}, "data: line 1") == []


KEYS = st.sampled_from(
    ["prompt", "response", "question", "answer", "messages", "chosen", "rejected", "conversations",
     "text", "choices", "group", "kind", "system", "input", "output", "role", "content", "x"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8)
    | st.sampled_from(["user", "assistant", "system", "a", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_row_is_either_examples_or_an_error_with_its_place(row: dict[str, Any]) -> None:
    try:
        examples = examples_of(row, "here: line 3")
    except UsageError as error:
        assert error.message.startswith("here: line 3: ")
        return
    for example in examples:
        assert example.messages[-1].role == "assistant"
        assert example.group and example.answer.strip()
        roles = [m.role for m in example.messages if m.role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=8))
def test_a_chat_comes_back_as_it_was_written(texts: list[str]) -> None:
    texts = texts[: len(texts) // 2 * 2]
    messages = [turn(("user", "assistant")[i % 2], t) for i, t in enumerate(texts)]
    examples = examples_of({"messages": messages}, "x")
    assert len(examples) == len(texts) // 2
    assert [m.content for m in examples[-1].messages] == texts
    assert examples[-1].messages[0] == Message("user", texts[0])
