"""An Ollama Modelfile (https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.chat_format import ChatFormat
from runtime.load import DEFAULT_CONTEXT
from runtime.sampling import Sampling
from specs.errors import IntegrityError

_CHATML = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n"
    "{{ .Content }}<|im_end|>\n"
    "{{ end }}<|im_start|>assistant\n"
)
"""ChatML in Go's template language; a message of the system is one of `.Messages`."""
_PROBE = (
    {"role": "system", "content": "S"},
    {"role": "user", "content": "Q"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "R"},
)


@dataclass(frozen=True)
class ChatML:
    """A chat format that is ChatML."""

    system: str
    """The message of the system that the format puts in where a conversation has none."""


def as_chatml(chat: ChatFormat) -> ChatML | None:
    """What of a base's chat format Ollama is to be told; None where it is not ChatML."""
    try:
        if chat.text(_PROBE) != _render(_PROBE):
            return None
        asked = _PROBE[1:2]
        text, plain = chat.text(asked), _render(asked)
    except IntegrityError:
        return None  # a template that refuses these messages is another one
    if text == plain:
        return ChatML("")
    opening, closing = "<|im_start|>system\n", "<|im_end|>\n"
    added = text.removesuffix(plain)
    if added == text or not (added.startswith(opening) and added.endswith(closing)):
        return None
    system = added.removeprefix(opening).removesuffix(closing)
    return None if "<|im_" in system else ChatML(system)


def _render(messages: Sequence[dict[str, str]]) -> str:
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def modelfile(model: str, chatml: ChatML | None, context: int, licence: str) -> str:
    """The text of a Modelfile.

    Args:
        model: name of a GGUF file beside it.
        context: most tokens the base reads.
    """
    lines = [f"FROM ./{model}"]
    if chatml is not None:
        lines.append(f'TEMPLATE """{_CHATML}"""')
        if chatml.system:
            lines.append(f"SYSTEM {_quoted(chatml.system)}")
        lines += ['PARAMETER stop "<|im_start|>"', 'PARAMETER stop "<|im_end|>"']
    sampling = Sampling()
    lines += [
        f"PARAMETER num_ctx {min(DEFAULT_CONTEXT, context)}",
        f"PARAMETER temperature {sampling.temperature}",
        f"PARAMETER top_k {sampling.top_k}",
        f"PARAMETER top_p {sampling.top_p}",
        f"PARAMETER min_p {sampling.min_p}",
        f"PARAMETER repeat_penalty {sampling.repetition_penalty}",
        "PARAMETER repeat_last_n 128",
        f"LICENSE {_quoted(licence)}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """In three quotation marks, which it may then not hold itself."""
    return '"""' + text.replace('"""', "'''") + '"""'
