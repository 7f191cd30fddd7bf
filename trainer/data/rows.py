"""One row of a data file, whatever kind of file it stands in, as training examples.

The forms are those of the data sets people have: chats (`messages`, and ShareGPT's
`conversations`), pairs under the usual names, Alpaca's `instruction`/`input`/`output`, preference
pairs as TRL reads them (`prompt`, `chosen`, `rejected`), and plain `text`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

from specs.errors import UsageError
from trainer.data.documents import continuations
from trainer.data.example import ROLES, Example, Message, Role, group_of

Row = Mapping[str, object]

PROMPTS = ("prompt", "question", "instruction", "query")
ANSWERS = ("response", "answer", "output", "completion")
BELOW = ("input", "context")
"""What is put below the prompt, where it is not empty."""
PAIR = '`{"prompt": "…", "response": "…"}`'
CHAT = '`{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}`'
FORMS = (
    "expected `messages`, or `prompt` and `response`, or `prompt`, `chosen` and `rejected`, "
    "or `text`"
)
_SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_TEXT = 16 * 1024 * 1024


def examples_of(row: Row, where: str, group_by: str = "group") -> list[Example]:
    """Examples of one row; a chat of several turns gives one per assistant message.

    Args:
        row: Keys are told apart without regard to case and space around them.
        where: File and line, for messages.
        group_by: The field that names the group; but for `group` itself every row must have it.

    Raises:
        UsageError: naming `where`, the field, what was expected and what was found.
    """
    row = {key.strip().lower(): value for key, value in row.items()}
    group = _group(row, group_by.strip().lower(), where)
    kind = _optional(row, "kind", where) or ""
    if "chosen" in row or "rejected" in row:
        return [_preference(row, group, kind, where)]
    for key in ("messages", "conversations"):
        if key in row:
            if "choices" in row:
                raise UsageError(f"{where}: `choices` goes with `prompt` and `response`")
            messages = _chat(row[key], key, where)
            return _turns(messages, group or group_of(_first_user(messages)), kind)
    answers = [key for key in ANSWERS if key in row]
    if answers and (prompt := _prompt(row, where)) is not None:
        key = _only(answers, where)
        answer = _text(row[key], key, where)
        choices = _choices(row.get("choices"), answer, key, where)
        group = group or group_of(prompt[-1].content)
        messages = (*prompt, Message("assistant", answer))
        tests = _optional(row, "tests", where) or ""
        return [Example(messages, group, choices, kind, tests=tests)]
    if "text" in row and not answers:
        text = _text(row["text"], "text", where)
        return continuations(text, "", group or group_of(text), kind or "continuation")
    found = ", ".join(f"`{key}`" for key in list(row)[:6]) or "no keys"
    raise UsageError(
        f"{where}: {FORMS}, and found {found}",
        hint=f"a row is {PAIR} or {CHAT}; docs/data.md has all forms",
    )


def _group(row: Row, key: str, where: str) -> str | None:
    value = row.get(key)
    if isinstance(value, int):
        return str(value)
    return _optional(row, key, where) if key == "group" else _text(value, key, where)


def _prompt(row: Row, where: str) -> tuple[Message, ...] | None:
    """System message and question of a pair; None where it has no question."""
    below = [key for key in BELOW if _given(row.get(key))]
    keys = [key for key in PROMPTS if key in row] or below[:1]
    if not keys:
        return None
    key = _only(keys, where)
    parts = [_text(row[key], key, where)]
    parts += [_text(row[k], k, where) for k in below if k != key]
    system = [Message("system", s)] if (s := _optional(row, "system", where)) else []
    return (*system, Message("user", "\n\n".join(parts)))


def _only(keys: Sequence[str], where: str) -> str:
    if len(keys) > 1:
        both = " and ".join(f"`{key}`" for key in keys)
        raise UsageError(
            f"{where}: expected one of {both}, found several", hint="rename or drop the others"
        )
    return keys[0]


def _preference(row: Row, group: str | None, kind: str, where: str) -> Example:
    """A better and a worse answer: texts, or messages that differ in the last one only."""
    for key in ("chosen", "rejected"):
        if key not in row:
            raise UsageError(f"{where}: `{key}`: expected beside the other of the pair")
    before = _asked(row, where)
    chosen, rejected = (_ending(row[key], key, before, where) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise UsageError(
            f"{where}: `chosen` and `rejected`: expected the same messages before the last one"
        )
    better, worse = chosen[-1].content, rejected[-1].content
    if better == worse:
        raise UsageError(f"{where}: `chosen` and `rejected` are the same text")
    return Example(chosen, group or group_of(_first_user(chosen)), (), kind, worse)


def _asked(row: Row, where: str) -> tuple[Message, ...]:
    """The messages a preference pair names apart; empty where its two answers carry them."""
    if isinstance(value := row.get("prompt"), list):
        return _messages(value, "prompt", where, last="user")
    return _prompt(row, where) or ()


def _ending(
    value: object, key: str, before: tuple[Message, ...], where: str
) -> tuple[Message, ...]:
    if isinstance(value, list):
        alone = before and len(value) == 1
        return _messages(value, key, where, before=before if alone else ())
    if not before:
        raise UsageError(
            f"{where}: `prompt`: expected where `{key}` is a text; found neither `prompt` nor "
            "messages"
        )
    return (*before, Message("assistant", _text(value, key, where)))


def _chat(value: object, key: str, where: str) -> tuple[Message, ...]:
    if key == "conversations" and isinstance(value, list):
        value = [
            {"role": _SHAREGPT.get(str(item["from"]), item["from"]), "content": item.get("value")}
            if isinstance(item, dict) and "from" in item
            else item
            for item in value
        ]
    return _messages(value, key, where)


def _messages(
    value: object,
    key: str,
    where: str,
    *,
    last: Role = "assistant",
    before: tuple[Message, ...] = (),
) -> tuple[Message, ...]:
    """Messages whose roles take turns, ending with `last`; those of `before` come first."""
    if not isinstance(value, list) or not value:
        raise UsageError(f"{where}: `{key}`: expected a list of messages, found {what(value)}")
    messages = list(before)
    for index, item in enumerate(value):
        at = f"{key}[{index}]"
        if not isinstance(item, dict):
            raise UsageError(f"{where}: `{at}`: expected an object, found {what(item)}")
        role = item.get("role")
        if role not in ROLES:
            raise UsageError(
                f"{where}: `{at}.role`: expected `system`, `user` or `assistant`, "
                f"found {what(role)}"
            )
        previous = messages[-1].role if messages else None
        expected = {None: ("system", "user"), "system": ("user",), "user": ("assistant",)}.get(
            previous, ("user",)
        )
        if role not in expected:
            words = " or ".join(f"`{r}`" for r in expected)
            raise UsageError(f"{where}: `{at}.role`: expected {words} here, found `{role}`")
        content = _text(item.get("content"), f"{at}.content", where)
        messages.append(Message(cast(Role, role), content))
    if messages[-1].role != last:
        raise UsageError(
            f"{where}: `{key}`: expected the last message to be the {last}'s, "
            f"found `{messages[-1].role}`",
            hint="there is nothing to learn without an answer" if last == "assistant" else None,
        )
    return tuple(messages)


def _turns(messages: tuple[Message, ...], group: str, kind: str) -> list[Example]:
    ends = [i + 1 for i, m in enumerate(messages) if m.role == "assistant"]
    return [Example(messages[:end], group, (), kind) for end in ends]


def _first_user(messages: tuple[Message, ...]) -> str:
    return next(m.content for m in messages if m.role == "user")


def _given(value: object) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())


def _text(value: object, field: str, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where}: `{field}`: expected text, found {what(value)}")
    if not value.strip():
        raise UsageError(f"{where}: `{field}`: expected text, found an empty string")
    if len(value) > _MAX_TEXT:
        raise UsageError(f"{where}: `{field}`: is longer than {_MAX_TEXT:,} characters")
    if _SURROGATE.search(value):
        raise UsageError(f"{where}: `{field}`: expected text, found half of a surrogate pair")
    return value


def _optional(row: Row, key: str, where: str) -> str | None:
    """A text; None where the key is not there, or its cell in a table is empty."""
    value = row.get(key)
    return _text(value, key, where) if _given(value) else None


def _choices(value: object, answer: str, key: str, where: str) -> tuple[str, ...]:
    if not _given(value):
        return ()
    if not isinstance(value, list) or len(value) < 2:
        raise UsageError(f"{where}: `choices`: expected two texts or more, found {what(value)}")
    choices = tuple(_text(v, f"choices[{i}]", where) for i, v in enumerate(value))
    if len(set(choices)) != len(choices):
        raise UsageError(f"{where}: `choices`: the same text stands twice")
    if answer not in choices:
        raise UsageError(f"{where}: `choices`: expected `{key}` among them, found it is not")
    return choices


def what(value: object) -> str:
    """A value in a few words, for "found …"."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return short(value)
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    return f"`{value}`"


def short(text: str) -> str:
    """The beginning of a text in back-ticks."""
    return f"`{text[:40]}…`" if len(text) > 41 else f"`{text}`"
