"""What training is made of: conversations that end with the answer to learn."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)


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
    `kind` tells sorts of examples apart in reports. `rejected`, where it is not empty, is a worse
    answer to the same messages: the example is a preference pair (`answer` over `rejected`).
    `tests`, where there are any, are a program that runs behind the code of an answer and comes to
    its end where that is right.
    """

    messages: tuple[Message, ...]
    group: str
    choices: tuple[str, ...] = ()
    kind: str = ""
    rejected: str = ""
    tests: str = ""

    @classmethod
    def of_pair(
        cls,
        prompt: str,
        answer: str,
        group: str,
        *,
        choices: tuple[str, ...] = (),
        kind: str = "",
        rejected: str = "",
        tests: str = "",
    ) -> Example:
        """One question and its answer."""
        messages = (Message("user", prompt), Message("assistant", answer))
        return cls(messages, group, choices, kind, rejected, tests)

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


def counted(number: int, thing: str) -> str:
    """`1 group`, `2,000 groups`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
