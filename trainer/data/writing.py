"""Examples as JSON-lines that read back as the same examples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.data.example import Example


def rows_of(examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
    """One row per example; the turns of a chat are the one row they came from."""
    inner = {
        (e.messages[:end], e.group, e.kind)
        for e in examples
        if _is_turn(e)
        for end in range(2, len(e.messages))
        if e.messages[end - 1].role == "assistant"
    }
    for example in examples:
        if _is_turn(example) and (example.messages, example.group, example.kind) in inner:
            continue
        yield _row(example)


def _is_turn(example: Example) -> bool:
    """Whether it may be one of several that a row of messages holds."""
    return not (example.choices or example.rejected or example.tests)


def _row(example: Example) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if example.rejected:
        chat = example.chat()
        row["chosen"] = chat
        row["rejected"] = [*chat[:-1], {"role": "assistant", "content": example.rejected}]
    elif example.choices or example.tests:
        *before, question, answer = example.messages
        if before:
            row["system"] = before[0].content
        row |= {"prompt": question.content, "response": answer.content}
        if example.choices:
            row["choices"] = list(example.choices)
    else:
        row["messages"] = example.chat()
    row["group"] = example.group
    if example.tests:
        row["tests"] = example.tests
    if example.kind:
        row["kind"] = example.kind
    return row


def write_examples(file: Path, examples: Sequence[Example]) -> int:
    """Write a JSON-lines file at once or not at all; returns its rows."""
    temporary = file.with_name(f".{file.name}.tmp")
    count = 0
    with temporary.open("w", encoding="utf-8", newline="\n") as target:
        for row in rows_of(examples):
            target.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    temporary.replace(file)
    return count
