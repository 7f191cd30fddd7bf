"""The folder `evaluation/` beside a pack's files: what it is measured on again, by `mbpm eval`.

`held-out.jsonl` holds the held-out examples; `training-prompts.txt` a digest of every prompt of
training, so that rows that training asked too can be told without keeping the data; `notes.txt`
what a reader of figures on these rows must know. None is part of the pack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from specs.errors import UsageError
from specs.model import Contract
from trainer.data.example import Example, Message, Role
from trainer.data.split import prompt_key

FOLDER = "evaluation"
HELD_OUT, ASKED, NOTES = "held-out.jsonl", "training-prompts.txt", "notes.txt"
MAX_LINE_BYTES = 1 << 20


class _Message(Contract):
    role: Role
    content: str


class _Row(Contract):
    """One line of `held-out.jsonl`."""

    messages: tuple[_Message, ...]
    group: str
    choices: tuple[str, ...] = ()
    kind: str = ""
    tests: str = ""

    _late = ("choices", "kind", "tests")


@dataclass(frozen=True)
class HeldOut:
    """Examples to measure on, and what training asked (None where nobody knows)."""

    examples: tuple[Example, ...]
    asked: frozenset[str] | None
    notes: tuple[str, ...] = ()


def write_held_out(
    pack: Path,
    held_out: Sequence[Example],
    training: Iterable[Example],
    notes: Sequence[str] = (),
) -> None:
    """Write the folder `evaluation/` of a pack folder."""
    folder = pack / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        _Row(
            messages=tuple(_Message(role=m.role, content=m.content) for m in e.messages),
            group=e.group,
            choices=e.choices,
            kind=e.kind,
            tests=e.tests,
        ).canonical()
        for e in held_out
    ]
    (folder / HELD_OUT).write_bytes(b"".join(lines))
    asked = sorted({_digest(e) for e in training})
    (folder / ASKED).write_text("".join(f"{d}\n" for d in asked), "utf-8")
    (folder / NOTES).write_text("".join(f"{n}\n" for n in notes), "utf-8")


def read_held_out(pack: Path) -> HeldOut | None:
    """What `write_held_out` wrote into a pack folder; None where there is nothing.

    Raises:
        UsageError: it is not what was written.
    """
    file = pack / FOLDER / HELD_OUT
    if not file.is_file():
        return None
    examples = []
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            row = _Row.parse(line, f"{file}: line {number}")
            if not row.messages:
                raise UsageError(f"{file}: line {number}: `messages` is empty")
            messages = tuple(Message(m.role, m.content) for m in row.messages)
            examples.append(Example(messages, row.group, row.choices, row.kind, tests=row.tests))
    asked, notes = pack / FOLDER / ASKED, pack / FOLDER / NOTES
    return HeldOut(
        tuple(examples),
        frozenset(asked.read_text("utf-8").split()) if asked.is_file() else None,
        tuple(notes.read_text("utf-8").splitlines()) if notes.is_file() else (),
    )


def without_asked(examples: Sequence[Example], asked: frozenset[str] | None) -> tuple[Example, ...]:
    """The examples that training does not ask.

    Raises:
        UsageError: it asks every one.
    """
    if asked is None:
        return tuple(examples)
    kept = tuple(e for e in examples if _digest(e) not in asked)
    if examples and not kept:
        raise UsageError(
            f"all {len(examples)} rows ask what training asked too",
            hint="evaluate on rows that were held out",
        )
    return kept


def _digest(example: Example) -> str:
    return hashlib.sha256(prompt_key(example).encode()).hexdigest()[:16]
