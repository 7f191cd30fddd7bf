"""Reading training data: JSON-lines of chats or pairs, text and Markdown, or folders of them."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from specs.errors import NotFoundError, UsageError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)

LINE_SUFFIXES = frozenset([".jsonl", ".ndjson"])
DOCUMENT_SUFFIXES = frozenset([".txt", ".md", ".markdown"])
MAX_LINE_BYTES = 1024 * 1024
MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
_PAIR = '`{"prompt": "…", "response": "…"}`'
_CHAT = '`{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}`'
_FORMATS = ".jsonl (chat messages or prompt/response pairs), .txt or .md"


@dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Example:
    """A conversation that ends with the assistant message to learn.

    `group` names what must not be spread over training and held-out data (a question, a concept, a
    file). `choices`, where there are any, are all answers to score, the right one among them.
    `kind` tells sorts of examples apart in reports.
    """

    messages: tuple[Message, ...]
    group: str
    choices: tuple[str, ...] = ()
    kind: str = ""

    @classmethod
    def of_pair(
        cls,
        prompt: str,
        answer: str,
        group: str,
        *,
        choices: tuple[str, ...] = (),
        kind: str = "",
    ) -> Example:
        """One question and its answer."""
        return cls((Message("user", prompt), Message("assistant", answer)), group, choices, kind)

    @property
    def answer(self) -> str:
        """The text of the last message."""
        return self.messages[-1].content

    def chat(self) -> list[dict[str, str]]:
        """The messages as a chat format takes them."""
        return [{"role": m.role, "content": m.content} for m in self.messages]


def normalise(text: str) -> str:
    """Text reduced to what two prompts must share to count as the same: letters and digits."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", " ", folded).strip()


def group_of(prompt: str) -> str:
    """The group of a row that names none: the same normalised prompt, the same group."""
    return hashlib.sha256(normalise(prompt).encode()).hexdigest()[:16]


def read_dataset(path: Path) -> list[Example]:
    """Read a file, or every data file of a folder and its subfolders.

    Documents become training pairs without a model (see `trainer.data.documents`). A chat of
    several turns becomes one example per assistant message.

    Raises:
        NotFoundError: `path` does not exist.
        UsageError: naming file, line, what was expected and what was found.
    """
    from trainer.data.documents import read_documents

    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.is_file() and _wanted(f, path))
        if not files:
            raise UsageError(
                f"{path}: no training data in this folder (expected files ending in {_FORMATS})"
            )
    elif path.is_file():
        if path.suffix.lower() not in LINE_SUFFIXES | DOCUMENT_SUFFIXES:
            raise UsageError(
                f"{path}: unknown kind of data `{path.suffix or path.name}` (expected {_FORMATS})",
                hint=f"write one JSON object per line, such as {_PAIR}, into a .jsonl file",
            )
        files = [path]
    else:
        raise NotFoundError(f"{path}: no such file or folder")
    examples: list[Example] = []
    documents = [f for f in files if f.suffix.lower() in DOCUMENT_SUFFIXES]
    for file in files:
        if file.suffix.lower() in LINE_SUFFIXES:
            examples.extend(read_lines(file))
    if documents:
        root = path if path.is_dir() else path.parent
        examples.extend(read_documents(documents, root))
    return examples


def _wanted(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and file.suffix.lower() in LINE_SUFFIXES | DOCUMENT_SUFFIXES


def read_lines(file: Path) -> list[Example]:
    """Read a JSON-lines file; raises as `read_dataset` does."""
    examples: list[Example] = []
    for number, line in _lines(file):
        examples.extend(_row(line, f"{file}: line {number}"))
    if not examples:
        raise UsageError(
            f"{file}: is empty (expected one JSON object per line)",
            hint=f"each line is {_PAIR} or {_CHAT}",
        )
    return examples


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and texts of the lines that are not blank, with a bounded buffer."""
    with file.open("rb") as stream:
        for number in range(1, 1 << 62):
            raw = stream.readline(MAX_LINE_BYTES + 1)
            if not raw:
                return
            where = f"{file}: line {number}"
            if len(raw) > MAX_LINE_BYTES:
                raise UsageError(
                    f"{where}: is longer than {MAX_LINE_BYTES:,} bytes",
                    hint="JSON-lines hold one object per line; a JSON array on one line is not it",
                )
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            text = decode(raw, where).strip()
            if text:
                yield number, text


def decode(raw: bytes, where: str) -> str:
    """UTF-8 text.

    Raises:
        UsageError: naming the first byte that is not UTF-8.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        coding = "utf-16" if utf16 else "latin1"
        raise UsageError(
            f"{where}: expected UTF-8 and found byte 0x{raw[error.start]:02x} "
            f"at position {error.start}" + (" (it looks like UTF-16)" if utf16 else ""),
            hint=f"convert it: `iconv -f {coding} -t utf-8 OLD > NEW`",
        ) from None
    if "\x00" in text:
        raise UsageError(f"{where}: expected text and found a zero byte")
    return text


def _row(line: str, where: str) -> list[Example]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{where}: expected a JSON object and found {_short(line)} "
            f"({error.msg}, column {error.colno})"
        ) from None
    except RecursionError:
        raise UsageError(f"{where}: is nested too deeply") from None
    if not isinstance(value, dict):
        raise UsageError(f"{where}: expected a JSON object and found {_what(value)}")
    group = _optional_text(value, "group", where)
    kind = _optional_text(value, "kind", where) or ""
    if "messages" in value:
        if "choices" in value:
            raise UsageError(f"{where}: `choices` goes with `prompt` and `response`")
        messages = _messages(value["messages"], where)
        return _turns(messages, group or group_of(_first_user(messages)), kind)
    if "prompt" in value and "response" in value:
        prompt = _text(value["prompt"], "prompt", where)
        answer = _text(value["response"], "response", where)
        choices = _choices(value.get("choices"), answer, where)
        return [
            Example.of_pair(prompt, answer, group or group_of(prompt), choices=choices, kind=kind)
        ]
    found = ", ".join(f"`{key}`" for key in list(value)[:6]) or "no keys"
    raise UsageError(
        f"{where}: expected `messages`, or `prompt` and `response`, and found {found}",
        hint=f"each line is {_PAIR} or {_CHAT}",
    )


def _messages(value: object, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise UsageError(f"{where}: `messages`: expected a list of messages, found {_what(value)}")
    messages: list[Message] = []
    for index, item in enumerate(value):
        at = f"messages[{index}]"
        if not isinstance(item, dict):
            raise UsageError(f"{where}: `{at}`: expected an object, found {_what(item)}")
        role = item.get("role")
        if role not in ROLES:
            raise UsageError(
                f"{where}: `{at}.role`: expected `system`, `user` or `assistant`, "
                f"found {_what(role)}"
            )
        before = messages[-1].role if messages else None
        expected = {None: ("system", "user"), "system": ("user",), "user": ("assistant",)}.get(
            before, ("user",)
        )
        if role not in expected:
            words = " or ".join(f"`{r}`" for r in expected)
            raise UsageError(f"{where}: `{at}.role`: expected {words} here, found `{role}`")
        messages.append(Message(role, _text(item.get("content"), f"{at}.content", where)))
    if messages[-1].role != "assistant":
        raise UsageError(
            f"{where}: `messages`: expected the last message to be the assistant's, "
            f"found `{messages[-1].role}`",
            hint="there is nothing to learn without an answer",
        )
    return tuple(messages)


def _turns(messages: tuple[Message, ...], group: str, kind: str) -> list[Example]:
    ends = [i + 1 for i, m in enumerate(messages) if m.role == "assistant"]
    return [Example(messages[:end], group, (), kind) for end in ends]


def _first_user(messages: tuple[Message, ...]) -> str:
    return next(m.content for m in messages if m.role == "user")


def _text(value: object, field: str, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where}: `{field}`: expected text, found {_what(value)}")
    if not value.strip():
        raise UsageError(f"{where}: `{field}`: expected text, found an empty string")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise UsageError(f"{where}: `{field}`: expected text, found half of a surrogate pair")
    return value


def _optional_text(value: dict[str, object], key: str, where: str) -> str | None:
    return _text(value[key], key, where) if key in value else None


def _choices(value: object, answer: str, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) < 2:
        raise UsageError(f"{where}: `choices`: expected two texts or more, found {_what(value)}")
    choices = tuple(_text(v, f"choices[{i}]", where) for i, v in enumerate(value))
    if len(set(choices)) != len(choices):
        raise UsageError(f"{where}: `choices`: the same text stands twice")
    if answer not in choices:
        raise UsageError(f"{where}: `choices`: expected `response` among them, found it is not")
    return choices


def _what(value: object) -> str:
    """A value in a few words, for "found …"."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return _short(value)
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    return f"`{value}`"


def _short(text: str) -> str:
    return f"`{text[:40]}…`" if len(text) > 41 else f"`{text}`"
