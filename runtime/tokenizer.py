"""Text to token ids and back, built from the vocabulary a GGUF file carries.

Byte-level BPE only (`tokenizer.ggml.model` = `gpt2`): Sennrich et al., arXiv 1508.07909, over the
byte alphabet of GPT-2. How text is cut before merging is named by `tokenizer.ggml.pre`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as _Backend

from runtime.byte_pairs import LONGEST_PIECE, Tables
from specs.errors import IntegrityError, MbpmError

if TYPE_CHECKING:
    from runtime.gguf_file import GGUFFile

SHORT = 2000
"""Letters of a text up to which tokens come from tables where there are some, and not from the
library, which first has to build its own."""

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
        self,
        library: Callable[[], _Backend],
        cut: str,
        special: dict[str, int],
        eos: int | None,
        whole: Mapping[str, int],
        tables: Tables | None = None,
    ) -> None:
        """Args:
        library: makes the library's tokenizer when it is first needed.
        cut: how text is cut, as in `tokenizer.ggml.pre`.
        whole: tokens that are matched whole inside of text.
        tables: the same vocabulary, for short texts.
        """
        self._make = library
        self._cut = cut
        self._eos = eos
        self._whole = dict(whole)
        self._tables = tables
        self._whole_pattern = re.compile(f"({any_of(whole)})")
        self.special = special
        ends = {special[name] for name in _END_TOKENS if name in special}
        self.eos_ids = frozenset(ends if eos is None else ends | {eos})
        self._special_ids = frozenset(special.values())
        self._whole_ids = frozenset(self._whole.values())

    @cached_property
    def _library(self) -> _Backend:
        return self._make()

    @cached_property
    def _cutter(self) -> tuple[normalizers.Normalizer | None, pre_tokenizers.PreTokenizer]:
        return _pre_tokenizer(self._cut, Path("tokenizer"))

    @classmethod
    def from_gguf(cls, path: Path) -> Tokenizer:
        """Build it from a GGUF file's metadata.

        Raises:
            IntegrityError: the file is malformed, or its vocabulary contradicts itself.
            MbpmError: a kind of tokenizer this runtime does not know.
        """
        from runtime.gguf_file import open_gguf

        return _build(open_gguf(path))

    def saved(self) -> tuple[dict[str, Any], bytes, bytes]:
        """What `restored` makes this of again: plain values, tables, the library's JSON."""
        raw = self._library.to_str()
        model = json.loads(raw)["model"]
        tokens = [self.token_bytes(i) for i in range(self.vocab_size)]
        values, tables = Tables.build(model["vocab"], model["merges"], tokens)
        own = {"cut": self._cut, "special": self.special, "eos": self._eos, "whole": self._whole}
        return {**own, "tables": values}, tables, raw.encode()

    @classmethod
    def restored(
        cls, values: Mapping[str, Any], tables: memoryview, library: Callable[[], bytes]
    ) -> Tokenizer:
        """The tokenizer that `saved` gave this.

        Args:
            library: reads the JSON when it is first needed.

        Raises:
            LookupError, TypeError, ValueError: these are not what `saved` gave.
        """
        return cls(
            lambda: _Backend.from_buffer(library()),
            str(values["cut"]),
            dict(values["special"]),
            values["eos"],
            values["whole"],
            Tables(values["tables"], tables),
        )

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to this, exclusive."""
        if self._tables is not None:
            return len(self._tables)
        return int(self._library.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; what looks like a control token is encoded letter by letter.

        Lone surrogates, which UTF-8 cannot hold, become U+FFFD.
        """
        if not text.isascii():
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids = None if self._tables is None else self._by_tables(text, self._tables)
        if ids is not None:
            return ids
        return list(self._library.encode(text, add_special_tokens=False).ids)

    def _by_tables(self, text: str, tables: Tables) -> list[int] | None:
        """Ids of a short text; None for one that the library is faster for."""
        if len(text) > SHORT:
            return None
        normalizer, cutter = self._cutter
        ids: list[int] = []
        for i, run in enumerate(self._whole_pattern.split(text)):
            if i % 2:
                ids.append(self._whole[run])
                continue
            if normalizer is not None:
                run = normalizer.normalize_str(run)
            for piece, _ in cutter.pre_tokenize_str(run) if run else ():
                if len(piece) > LONGEST_PIECE:
                    return None
                ids += tables.merge(piece)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids without control tokens; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token stands for; none for a control token."""
        if self._tables is not None:
            return self._tables.token(token)
        if token in self._special_ids:
            return b""
        text = self._library.id_to_token(token)
        if text is None:
            raise IndexError(f"{token} is not a token")
        if token in self._whole_ids:
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
    cut = file.get("tokenizer.ggml.pre")
    normalizer, pre_tokenizer = _pre_tokenizer(cut, where)
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
    whole = {tokens[i]: i for i, t in enumerate(types) if t == USER_DEFINED}
    # Only user-defined tokens are matched inside text: control tokens come from the chat format.
    backend.add_tokens([AddedToken(text, normalized=False, special=False) for text in whole])
    eos = file.metadata.get("tokenizer.ggml.eos_token_id")
    if eos is not None and not (isinstance(eos, int) and 0 <= eos < len(tokens)):
        raise IntegrityError(f"{where}: `tokenizer.ggml.eos_token_id` is {eos!r}")
    return Tokenizer(lambda: backend, cut, special, eos, whole)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def any_of(texts: Iterable[str]) -> str:
    """A regular expression that matches any of the texts, the longest first."""
    names = sorted(texts, key=len, reverse=True)
    return "|".join(map(re.escape, names)) if names else "(?!)"
