"""A conversation as tokens, by the chat template that the base's GGUF file carries.

The template runs in Jinja's immutable sandbox with the settings transformers uses, so that the
same conversation becomes the same text. Text of a message can never become a control token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runtime.tokenizer import Tokenizer, any_of
from specs.errors import IntegrityError, UsageError

MAX_TEMPLATE_CHARACTERS = 64 * 1024
MAX_RENDERED_CHARACTERS = 16 * 1024 * 1024
ROLES = ("system", "user", "assistant")

Message = Mapping[str, str]
"""`role` (one of ROLES) and `content`."""


@dataclass(frozen=True)
class Prompt:
    """A conversation that waits for the assistant; `tokens[header_start:]` opens its turn."""

    tokens: list[int]
    header_start: int
    last_message: tuple[int, int]
    """Where the content of the last message lies: `tokens[start:end]`."""


@dataclass(frozen=True)
class Example:
    """A conversation that ends with an answer and its end-of-turn token.

    `tokens[header_start:answer_start]` opens the assistant's turn, `tokens[answer_start:]` is the
    answer: exactly the tokens a session would have generated after the same prompt.
    """

    tokens: list[int]
    header_start: int
    answer_start: int


class _Sandbox(ImmutableSandboxedEnvironment):
    """Refuses the operators that make huge values out of small ones."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        if operator == "**" or not all(isinstance(v, (int, float)) for v in (left, right)):
            raise jinja2.TemplateError(f"operator {operator} is not allowed")
        return super().call_binop(context, operator, left, right)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


class ChatFormat:
    """The chat format of one base; `template` is its source."""

    def __init__(self, template: str, tokenizer: Tokenizer, where: str) -> None:
        """Compile a template.

        Args:
            where: what to call the template's file in an error.

        Raises:
            IntegrityError: it is too large or not a template.
        """
        if len(template) > MAX_TEMPLATE_CHARACTERS:
            raise IntegrityError(
                f"{where}: chat template of {len(template):,} characters, "
                f"more than the {MAX_TEMPLATE_CHARACTERS:,} accepted"
            )
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        self.template = template
        self._where = where
        self._tokenizer = tokenizer
        special = any_of(tokenizer.special)
        self._special = re.compile(f"({special})")
        self._begins_special = re.compile(f"(?={special})(.)", re.DOTALL)
        try:
            self._template = environment.from_string(template)
        except (jinja2.TemplateError, RecursionError) as error:
            raise IntegrityError(f"{where}: the chat template is malformed ({error})") from None

    @classmethod
    def from_gguf(cls, path: Path, tokenizer: Tokenizer) -> ChatFormat:
        """The format stored as `tokenizer.chat_template`.

        Raises:
            IntegrityError: there is none, or it is malformed.
        """
        from runtime.gguf_file import open_gguf

        template = open_gguf(path).get("tokenizer.chat_template")
        if not isinstance(template, str):
            raise IntegrityError(f"{path}: `tokenizer.chat_template` is not text")
        return cls(template, tokenizer, str(path))

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """Everything up to where the assistant's answer begins.

        Raises:
            UsageError: a message with an unknown role, or none at all.
            IntegrityError: the template fails, or does not end with an assistant header.
        """
        messages, markers = self._shielded(messages)
        before = self._render(messages, False)
        text = self._render(messages, True)
        if not text.startswith(before) or len(text) == len(before):
            raise IntegrityError(f"{self._where}: the chat template has no assistant header")
        tokens, header = self._encode(before, markers), self._encode(text[len(before) :], markers)
        return Prompt(tokens + header, len(tokens), self._last_message(messages, markers, tokens))

    def text(self, messages: Sequence[Message]) -> str:
        """The same as text, control tokens written out; raises as `prompt`."""
        shielded, markers = self._shielded(messages)
        text = self._render(shielded, True)
        return text.replace(markers[0], "").replace(markers[1], "")

    def _last_message(
        self, messages: list[dict[str, str]], markers: str, tokens: list[int]
    ) -> tuple[int, int]:
        """Where the last message's content, without white space round it, lies in `tokens`."""
        content, fence = messages[-1]["content"], markers[1]
        core = content.strip()
        fenced = content.replace(core, fence + core + fence, 1) if core else fence * 2
        last = {"role": messages[-1]["role"], "content": fenced}
        parts = self._render([*messages[:-1], last], False).split(fence)
        if len(parts) != 3:
            raise IntegrityError(
                f"{self._where}: the chat template leaves out or repeats a message"
            )
        start = len(self._encode(parts[0], markers))
        return start, max(start, len(tokens) - len(self._encode(parts[2], markers)))

    def example(self, messages: Sequence[Message]) -> Example:
        """A conversation that ends with an assistant message, up to its end-of-turn token.

        Raises:
            UsageError: it does not end with an assistant message, or as `prompt`.
            IntegrityError: as `prompt`, or the template puts no end-of-turn token after the answer.
        """
        if not messages or messages[-1].get("role") != "assistant":
            raise UsageError("a training conversation must end with a message of the assistant")
        prompt = self.prompt(messages[:-1])
        shielded, markers = self._shielded(messages)
        opened = self._render(shielded[:-1], True)
        text = self._render(shielded, False)
        if not text.startswith(opened):
            raise IntegrityError(
                f"{self._where}: the chat template writes an answer otherwise than it opens it"
            )
        answer, end = (*self._special.split(text[len(opened) :], maxsplit=1), "", "")[:2]
        if self._tokenizer.special.get(end) not in self._tokenizer.eos_ids:
            raise IntegrityError(
                f"{self._where}: the chat template ends no answer with an end-of-turn token"
            )
        tokens = [
            *prompt.tokens,
            *self._encode(answer, markers),
            self._tokenizer.special[end],
        ]
        return Example(tokens, prompt.header_start, len(prompt.tokens))

    def _shielded(self, messages: Sequence[Message]) -> tuple[list[dict[str, str]], str]:
        """Messages with every look-alike broken, and two private-use characters they do not hold.

        The first one breaks look-alikes; `_encode` takes both out again.
        """
        if not messages:
            raise UsageError("a conversation needs at least one message")
        for message in messages:
            if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
                raise UsageError(
                    f"a message needs a role ({', '.join(ROLES)}) and content, got {dict(message)}"
                )
        present = set().union(*(m["content"] for m in messages))
        free = (c for c in map(chr, range(0xF0000, 0xFFFFE)) if c not in present)
        markers = "".join(islice(free, 2))
        if len(markers) < 2:
            raise UsageError("the conversation holds every private-use character of Unicode")
        shielded = [
            {
                "role": m["role"],
                "content": self._begins_special.sub(rf"\1{markers[0]}", m["content"]),
            }
            for m in messages
        ]
        return shielded, markers

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        pieces, size = [], 0
        try:
            for piece in self._template.generate(
                messages=messages, add_generation_prompt=add_generation_prompt, tools=None
            ):
                size += len(piece)
                if size > MAX_RENDERED_CHARACTERS:
                    raise jinja2.TemplateError("its output has no end")
                pieces.append(piece)
        # A template is a program of others: whatever it does wrong is its own fault.
        except (
            jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError,
            TypeError, ValueError,
        ) as error:  # fmt: skip
            raise IntegrityError(
                f"{self._where}: the chat template refuses this conversation ({error})"
            ) from None
        return "".join(pieces)

    def _encode(self, text: str, markers: str) -> list[int]:
        tokens: list[int] = []
        for i, run in enumerate(self._special.split(text)):
            if i % 2:
                tokens.append(self._tokenizer.special[run])
            elif run:
                plain = run.replace(markers[0], "").replace(markers[1], "")
                tokens += self._tokenizer.encode(plain)
        return tokens
