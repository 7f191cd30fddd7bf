"""Files of rows: what is read, and where a mistake is said to be."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.errors import UsageError
from trainer.data.example import Example
from trainer.data.reading import read_dataset

ROWS = [{"prompt": f"q{i}", "response": f'a\n{i}, "x"'} for i in range(3)]


def read(tmp_path: Path, name: str, content: str | bytes) -> list[Example]:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_dataset(file)


def refused(tmp_path: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, name, content)
    return caught.value.message


def table(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def forms() -> dict[str, str | bytes]:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    return {
        "a.jsonl": lines,
        "a.ndjson": lines,
        "a.json": json.dumps(ROWS),
        "indented.json": json.dumps(ROWS, indent=2),
        "really-lines.json": lines,
        "a.csv": table(ROWS),
        "semicolons.csv": table(ROWS, ";"),
        "tabs.csv": table(ROWS, "\t"),
        "a.tsv": table(ROWS, "\t"),
        "a.jsonl.gz": gzip.compress(lines.encode()),
        "a.csv.gz": gzip.compress(table(ROWS).encode()),
    }


@pytest.mark.parametrize("name", forms())
def test_the_same_rows_in_every_form(tmp_path: Path, name: str) -> None:
    examples = read(tmp_path, name, forms()[name])
    assert [(e.messages[0].content, e.answer) for e in examples] == [
        (row["prompt"], row["response"]) for row in ROWS
    ]


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    chats = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": r}]}
        for r in ("one", "two")
    ]
    pq.write_table(pa.Table.from_pylist(chats), tmp_path / "chats.parquet")
    assert [e.answer for e in read_dataset(tmp_path / "chats.parquet")] == ["one", "two"]
    rows = [{"prompt": "q", "response": "r"}, {"prompt": "q", "response": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "gap.parquet")
    with pytest.raises(UsageError, match=r"gap\.parquet: row 2: `response`: .*found nothing"):
        read_dataset(tmp_path / "gap.parquet")
    for raw in (b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1"):
        (tmp_path / "bad.parquet").write_bytes(raw)
        with pytest.raises(UsageError, match=r"bad\.parquet: is not a readable Parquet"):
            read_dataset(tmp_path / "bad.parquet")


def test_parquet_without_pyarrow_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError) as caught:
        read_dataset(tmp_path / "a.parquet")
    assert "needs pyarrow" in caught.value.message
    assert caught.value.hint == "`pip install 'mbpm[data]'`"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", '[{"prompt": "q",\n "response": 1}]', "line 1: `response`: expected text"),
        ("a.json", '[\n\n{"prompt": "q"\n "x"}]', "a.json: line 4: expected a JSON object"),
        ("a.json", '[{"prompt": "q", "response": "r"}', "line 1: expected `]` at the end"),
        ("a.json", '[{"prompt": "q", "response": "r"}] x', "expected nothing after the array"),
        ("a.json", "[" * 100_000, "a.json: line 1: is nested too deeply"),
        ("a.json", '{"a": ' * 100_000, "a.json: line 1: is nested too deeply"),
        ("a.json", f'{{"prompt": {"1" * 5000}}}', "a.json: line 1: holds a number it should not"),
        ("a.jsonl", f'{{"prompt": {"1" * 5000}}}', "a.jsonl: line 1: holds a number"),
        ("a.json", "[]", "a.json: is empty (expected an array of JSON objects)"),
        ("a.json", "", "a.json: is empty"),
        ("a.csv", "", "a.csv: is empty (expected a header and rows)"),
        ("a.csv", "prompt,response\n", "a.csv: is empty"),
        ("a.csv", "prompt,response\nx,y\nz\n", "line 3: expected 2 cells, as the header"),
        ("a.csv", "prompt,response\nx,\n", "line 2: `response`: expected text"),
        ("a.csv", '\n\nprompt,response\nx,"y" z\n', "a.csv: line 4: is not CSV"),
        ("a.csv", 'prompt,response\nx,"y\n', "a.csv: line 2: is not CSV"),
        ("a.csv", "prompt,Prompt\nx,y\n", "the column `prompt` stands twice"),
        ("a.csv", "title;body\nx;y\n", "its columns is known: `title`, `body`"),
        ("a.csv", b"prompt,response\nx,y\nx,caf\xe9\n", "line 3: expected UTF-8 and found byte"),
        ("a.txt", b"\xba\x00\x01", "is binary, no text"),
        ("a.csv", b"What is it?,A thing.\nWho?,Me.\n", "line 1: is read as the header, and none"),
        ("a.csv", b"prompt,response\nx,y\x00\n", "line 2: expected text and found a zero byte"),
        ("a.jsonl.gz", gzip.compress(b'{"prompt"' * 99, mtime=0)[:-9], "a.jsonl.gz: "),
        ("a.jsonl.gz", b"\x1f\x8b" + b"x" * 40, "a.jsonl.gz: is damaged gzip"),
        ("a.tar.gz", b"\x1f\x8b", "unknown kind of data"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, expected: str
) -> None:
    assert expected in refused(tmp_path, name, content)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")).filter(
    str.strip
)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6))
def test_texts_come_back_from_csv_and_json_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rows = [{"prompt": p, "response": r} for p, r in pairs]
    for name, content in (("a.csv", table(rows)), ("a.json", json.dumps(rows))):
        examples = read(folder, name, content)
        assert [(e.messages[0].content, e.answer) for e in examples] == pairs


@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.tsv", "a.json", "a.jsonl", "a.html"]))
def test_any_bytes_are_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, name: str
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    try:
        read(folder, name, raw)
    except UsageError as error:
        assert name in error.message


def test_lines_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.data.encoding.MAX_LINES_BYTES", 10_000)
    line = b'{"prompt": "q", "response": "r"}\n'
    bomb = gzip.compress(line * 1000, mtime=0)
    assert "more than 10,000 bytes before it" in refused(tmp_path, "a.jsonl.gz", bomb)
