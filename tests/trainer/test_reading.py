"""What `mbpm train --data` accepts, and what it says of data it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specs.errors import NotFoundError, UsageError
from trainer.data.encoding import MAX_LINE_BYTES
from trainer.data.example import Example, Message, normalise
from trainer.data.reading import read_dataset

LEGAL = Path(__file__).parents[1] / "data" / "legal-mini.jsonl"


def write(tmp_path: Path, *rows: object, name: str = "data.jsonl") -> Path:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
    file.write_text(text, encoding="utf-8")
    return file


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_dataset(path)
    return caught.value.message


def chat(*turns: tuple[str, str], **more: object) -> dict[str, object]:
    return {"messages": [{"role": r, "content": c} for r, c in turns], **more}


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]


def test_pairs(tmp_path: Path) -> None:
    file = write(tmp_path, {"prompt": "Hi", "response": "Hello", "group": "g", "kind": "k"})
    assert read_dataset(file) == [
        Example((Message("user", "Hi"), Message("assistant", "Hello")), "g", (), "k")
    ]


def test_rows_without_a_group_are_grouped_by_their_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": p, "response": "x"} for p in ("What is it?", "what is  IT", "Other")]
    one, same, other = read_dataset(write(tmp_path, *rows))
    assert one.group == same.group != other.group


def test_every_assistant_turn_of_a_chat_is_an_example(tmp_path: Path) -> None:
    row = chat(
        ("system", "Be brief"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", "d"),
        group="talk",
    )
    first, second = read_dataset(write(tmp_path, row))
    assert [m.content for m in first.messages] == ["Be brief", "a", "b"]
    assert [m.content for m in second.messages] == ["Be brief", "a", "b", "c", "d"]
    assert {first.group, second.group} == {"talk"}
    assert second.chat()[-1] == {"role": "assistant", "content": "d"}


def test_choices_hold_the_answer(tmp_path: Path) -> None:
    row = {"prompt": "p", "response": "b", "choices": ["a", "b"]}
    (example,) = read_dataset(write(tmp_path, row))
    assert example.choices == ("a", "b")
    assert "`choices`: expected `response` among them" in refused(
        write(tmp_path, {**row, "response": "c"})
    )
    assert "the same text stands twice" in refused(write(tmp_path, {**row, "choices": ["b", "b"]}))


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "p", "response": "r"}\r\n\r\n')
    assert [e.answer for e in read_dataset(file)] == ["r"]


def test_an_empty_file(tmp_path: Path) -> None:
    message = refused(write(tmp_path))
    assert message.endswith("data.jsonl: is empty (expected one JSON object per line)")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{not json", "line 2: expected a JSON object and found `{not json`"),
        ("[1, 2]", "line 2: expected a JSON object and found a list of 2"),
        ({"headline": "x", "story": "y"}, "found `headline`, `story`"),
        ({"prompt": "x"}, "expected `messages`, or `prompt` and `response`, or `prompt`, `chosen`"),
        ({"response": "x"}, "and found `response`"),
        ({"prompt": "x", "question": "y", "response": "z"}, "expected one of `prompt` and `quest"),
        ({"prompt": "x", "answer": "y", "output": "z"}, "expected one of `answer` and `output`"),
        ({"prompt": "x", "chosen": "y"}, "`rejected`: expected beside the other of the pair"),
        ({"prompt": "x", "chosen": "y", "rejected": "y"}, "are the same text"),
        ({"chosen": "y", "rejected": "z"}, "`prompt`: expected where `chosen` is a text"),
        (
            {"chosen": talk("a", "b"), "rejected": talk("c", "d")},
            "expected the same messages before the last one",
        ),
        ({"prompt": [], "chosen": "y", "rejected": "z"}, "`prompt`: expected a list of messages"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "[0].role`: expected `system`"),
        ({"text": 5}, "`text`: expected text, found `5`"),
        ({"prompt": "x", "response": 3}, "`response`: expected text, found `3`"),
        ({"prompt": "x", "response": "  "}, "`response`: expected text, found an empty string"),
        ({"prompt": "x", "response": "\ud800"}, "half of a surrogate pair"),
        ({"prompt": "x", "response": "y", "group": []}, "`group`: expected text, found a list"),
        ({"messages": []}, "`messages`: expected a list of messages, found a list of 0"),
        ({"messages": ["x"]}, "`messages[0]`: expected an object, found `x`"),
        (chat(("user", "x")), "expected the last message to be the assistant's, found `user`"),
        (chat(("assistant", "x")), "expected `system` or `user` here, found `assistant`"),
        (chat(("user", "x"), ("user", "y")), "expected `assistant` here, found `user`"),
        (
            chat(("user", "x"), ("tool", "y")),
            "`messages[1].role`: expected `system`, `user` or `assistant`, found `tool`",
        ),
        (
            {"messages": [{"role": "user", "content": None}]},
            "`messages[0].content`: expected text, found nothing",
        ),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_row_is_named_with_what_was_expected_and_found(
    tmp_path: Path, row: object, expected: str
) -> None:
    message = refused(write(tmp_path, {"prompt": "p", "response": "r"}, row))
    assert expected in message
    assert "data.jsonl: line 2" in message


def test_a_huge_line_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    row = {"prompt": "p", "response": "x" * MAX_LINE_BYTES}
    assert f"line 1: is longer than {MAX_LINE_BYTES:,} bytes" in refused(write(tmp_path, row))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('{"prompt": "caf\u00e9", "response": "r"}'.encode("latin1"), "byte 0xe9 at position 15"),
        ('{"prompt": "p", "response": "r"}'.encode("utf-16-le"), "found a zero byte"),
        (b'{"prompt": "p"\x00}', "found a zero byte"),
    ],
)
def test_other_encodings(tmp_path: Path, raw: bytes, expected: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(raw)
    message = refused(file)
    assert expected in message
    assert "line 1" in message


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file or folder"):
        read_dataset(tmp_path / "nothing.jsonl")


def test_utf_16_is_read_where_its_mark_says_so(tmp_path: Path) -> None:
    for coding in ("utf-16", "utf-8-sig"):
        for name, text in (
            ("a.jsonl", '{"prompt": "café?", "response": "r"}\n\n{"prompt": "q", "response": "s"}'),
            ("a.csv", "prompt,response\ncafé?,r\nq,s\n"),
            ("a.json", '[{"prompt": "café?", "response": "r"}, {"prompt": "q", "response": "s"}]'),
        ):
            (tmp_path / name).write_bytes(text.encode(coding))
            first, second = read_dataset(tmp_path / name)
            assert (first.messages[0].content, second.answer) == ("café?", "s")
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe{")
    assert "begins as UTF-16 and is something else" in refused(tmp_path / "a.jsonl")


def test_other_kinds_of_files(tmp_path: Path) -> None:
    assert "unknown kind of data `.xls`" in refused(write(tmp_path, "a,b", name="data.xls"))
    (tmp_path / "folder").mkdir()
    write(tmp_path, "a,b", name="folder/data.xls")
    write(tmp_path, "You may copy this. And change it.", name="folder/LICENSE.txt")
    assert "no training data in this folder" in refused(tmp_path / "folder")


def test_a_folder_is_read_with_its_subfolders_but_nothing_hidden(tmp_path: Path) -> None:
    write(tmp_path, {"prompt": "p", "response": "one"}, name="b.jsonl")
    write(tmp_path, {"prompt": "p", "response": "two"}, name="a/deep.jsonl")
    write(tmp_path, {"prompt": "p", "response": "no"}, name=".cache/x.jsonl")
    assert [e.answer for e in read_dataset(tmp_path)] == ["two", "one"]


def test_the_small_legal_set() -> None:
    examples = read_dataset(LEGAL)
    assert len(examples) == 60
    assert len({e.group for e in examples}) == 20


def test_normalise_ignores_case_punctuation_and_width() -> None:
    assert normalise("  What's  \uff21\uff22?! ") == normalise("what s ab")
