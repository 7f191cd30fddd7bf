"""Text to token ids and back, built from the vocabulary a GGUF file carries.

Byte-level BPE only (`tokenizer.ggml.model` = `gpt2`): Sennrich et al., arXiv 1508.07909, over the
byte alphabet of GPT-2. How text is cut before merging is named by `tokenizer.ggml.pre`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as _Backend

from specs.errors import IntegrityError, MbpmError

if TYPE_CHECKING:
    from runtime.gguf_file import GGUFFile

CONTROL, USER_DEFINED = 3, 4
"""Values of `tokenizer.ggml.token_type` (gguf's TokenType) that are matched whole."""

_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""`pre_tokenizer` of Qwen2's published tokenizer.json."""

_END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>")
"""Control tokens that end an answer in the chat formats of the supported architectures."""


@lru_cache(maxsize=1)
def _byte_of_letter() -> dict[str, int]:
    """GPT-2's alphabet: every byte as a printable character, and back."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    letters = {chr(b): b for b in printable}
    letters.update({chr(256 + i): b for i, b in enumerate(others)})
    return letters


class TokenStream:
    """Turns ids into text as they come; bytes of an unfinished character wait for the rest."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text this token completes; may be empty."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def flush(self) -> str:
        """What is left when no more tokens come: U+FFFD for an unfinished character, or nothing."""
        return self._decoder.decode(b"", final=True)


class Tokenizer:
    """The tokenizer of one base.

    `special` maps every control token to its id; `eos_ids` are those that end an answer.
    """

    def __init__(
        self, backend: _Backend, special: dict[str, int], eos: int | None, whole: frozenset[int]
    ) -> None:
        self._backend = backend
        self._eos = eos
        self._whole = whole
        self.special = special
        ends = {special[name] for name in _END_TOKENS if name in special}
        self.eos_ids = frozenset(ends if eos is None else ends | {eos})
        self._special_ids = frozenset(special.values())

    @classmethod
    def from_gguf(cls, path: Path) -> Tokenizer:
        """Build it from a GGUF file's metadata.

        Raises:
            IntegrityError: the file is malformed, or its vocabulary contradicts itself.
            MbpmError: a kind of tokenizer this runtime does not know.
        """
        from runtime.gguf_file import open_gguf

        return _build(open_gguf(path))

    def saved(self) -> tuple[dict[str, Any], bytes]:
        """What `restored` makes this tokenizer of again: plain values, and the library's JSON."""
        values = {"special": self.special, "eos": self._eos, "whole": sorted(self._whole)}
        return values, self._backend.to_str().encode()

    @classmethod
    def restored(cls, values: Mapping[str, Any], raw: bytes) -> Tokenizer:
        """The tokenizer that `saved` gave this.

        Raises:
            IntegrityError: the library cannot read it.
        """
        try:
            backend = _Backend.from_buffer(raw)
        except Exception as error:  # the library raises bare Exception
            raise IntegrityError(f"the kept tokenizer is unusable ({error})") from None
        return cls(backend, values["special"], values["eos"], frozenset(values["whole"]))

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to this, exclusive."""
        return int(self._backend.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; what looks like a control token is encoded letter by letter.

        Lone surrogates, which UTF-8 cannot hold, become U+FFFD.
        """
        if not text.isascii():
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids without control tokens; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token stands for; none for a control token."""
        if token in self._special_ids:
            return b""
        text = self._backend.id_to_token(token)
        if text is None:
            raise IndexError(f"{token} is not a token")
        if token in self._whole:
            return text.encode()
        letters = _byte_of_letter()
        return bytes(letters[c] for c in text if c in letters)

    def stream(self) -> TokenStream:
        """A decoder for one answer."""
        return TokenStream(self)


def _pre_tokenizer(
    name: object, where: Path
) -> tuple[normalizers.Normalizer | None, pre_tokenizers.PreTokenizer]:
    """Normalizer and pre-tokenizer as the original tokenizer.json of that family has them."""
    if name == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        return None, pre_tokenizers.Sequence([digits, words])
    if name == "qwen2":
        split = pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated")
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return normalizers.NFC(), pre_tokenizers.Sequence([split, as_bytes])
    raise MbpmError(
        f"{where}: cuts text the way of `{name}` (tokenizer.ggml.pre), "
        "and this runtime knows `smollm` and `qwen2`"
    )


def _build(file: GGUFFile) -> Tokenizer:
    where = file.path
    kind = file.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise MbpmError(
            f"{where}: has a tokenizer of kind `{kind}` (tokenizer.ggml.model), "
            "and this runtime knows `gpt2`"
        )
    normalizer, pre_tokenizer = _pre_tokenizer(file.get("tokenizer.ggml.pre"), where)
    tokens, merges = file.get("tokenizer.ggml.tokens"), file.get("tokenizer.ggml.merges")
    if not (_is_texts(tokens) and _is_texts(merges)):
        raise IntegrityError(f"{where}: tokens and merges of the tokenizer must be lists of text")
    types = file.metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if isinstance(types, (str, int, float)) or len(types) != len(tokens):
        raise IntegrityError(f"{where}: `tokenizer.ggml.token_type` does not match the vocabulary")
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise IntegrityError(f"{where}: the vocabulary holds a token twice")
    pairs = [tuple(m.split(" ")) for m in merges]
    try:
        backend = _Backend(models.BPE(vocab=vocab, merges=pairs))
    except Exception as error:  # the library raises bare Exception for merges out of vocabulary
        raise IntegrityError(f"{where}: the tokenizer's merges are unusable ({error})") from None
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizer

    special = {tokens[i]: i for i, t in enumerate(types) if t == CONTROL}
    if short := [name for name in special if len(name) < 2]:
        raise IntegrityError(f"{where}: control token {short[0]!r} is a single character")
    whole = [i for i, t in enumerate(types) if t == USER_DEFINED]
    # Only user-defined tokens are matched inside text: control tokens come from the chat format.
    backend.add_tokens([AddedToken(tokens[i], normalized=False, special=False) for i in whole])
    eos = file.metadata.get("tokenizer.ggml.eos_token_id")
    if eos is not None and not (isinstance(eos, int) and 0 <= eos < len(tokens)):
        raise IntegrityError(f"{where}: `tokenizer.ggml.eos_token_id` is {eos!r}")
    return Tokenizer(backend, special, eos, frozenset(whole))


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def any_of(texts: Iterable[str]) -> str:
    """A regular expression that matches any of the texts, the longest first."""
    names = sorted(texts, key=len, reverse=True)
    return "|".join(map(re.escape, names)) if names else "(?!)"
