"""The text a base learns from, as windows of tokens; some of it as conversations."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.chat_format import ChatFormat
from runtime.tokenizer import Tokenizer
from specs.errors import NotFoundError, UsageError
from trainer.data.documents import split_passages
from trainer.data.encoding import decode
from trainer.data.example import Example
from trainer.data.files import DOCUMENT_SUFFIXES, DataFile
from trainer.data.markup import MARKDOWN_SUFFIXES, TEXT_SUFFIXES, read_document
from trainer.data.reading import read_files
from trainer.pretrain.config import BaseConfig
from trainer.pretrain.tokenizer import SPECIAL

Tokens = npt.NDArray[np.int32]

HELD_OUT_SHARE = 0.1
MAX_TEXT_BYTES = 1 << 30


@dataclass(frozen=True)
class Corpus:
    """What was read."""

    texts: dict[str, str]
    """Name -> text to learn from."""
    held_out: dict[str, str]
    """Name -> text kept for evaluation."""
    conversations: tuple[Example, ...]
    """Made of what is learnt from alone."""


def read_corpus(files: Sequence[DataFile], config: BaseConfig) -> Corpus:
    """Read documents as text, and conversations where there are some.

    Raises:
        NotFoundError: no file of a name that is to be held out.
        UsageError: nothing usable in them, or nothing left to learn from or to evaluate on.
    """
    texts = _texts([f for f in files if f.kind in DOCUMENT_SUFFIXES])
    if missing := sorted(set(config.held_out) - texts.keys()):
        raise NotFoundError(
            f"the data has no document `{missing[0]}`, which is to be held out",
            hint="there are " + ", ".join(f"`{name}`" for name in sorted(texts)),
        )
    if config.held_out:
        held = {name: texts.pop(name) for name in dict.fromkeys(config.held_out)}
    else:
        held, texts = _last_tenths(texts)
    if not texts or not any(held.values()):
        raise UsageError(
            f"too little text ({len(texts)} documents to learn from, {len(held)} held out)",
            hint="give more files, or name fewer in `held_out`",
        )
    conversations: list[Example] = []
    if config.training.chat_share:
        conversations += [e for name, text in texts.items() for e in _continuations(name, text)]
        conversations += read_files([f for f in files if f.kind not in DOCUMENT_SUFFIXES])
    return Corpus(texts, held, tuple(conversations))


def _continuations(name: str, text: str) -> Iterator[Example]:
    """A passage as the question, the one after it as the answer."""
    for before, after in itertools.pairwise(split_passages(text)):
        yield Example.of_pair(before, after, name)


def _texts(files: Sequence[DataFile]) -> dict[str, str]:
    """Place -> text, as it stands; of HTML and PDF files what a reader sees."""
    if not files:
        raise UsageError("no text to learn from (expected .txt, .md, .html or .pdf files)")
    size = sum(f.path.stat().st_size for f in files)
    if size > MAX_TEXT_BYTES:
        raise UsageError(f"{size:,} bytes of text, more than {MAX_TEXT_BYTES:,}")
    found: dict[str, str] = {}
    for file in files:
        if file.kind in TEXT_SUFFIXES | MARKDOWN_SUFFIXES:
            text = decode(file.path.read_bytes(), file.name).replace("\r\n", "\n")
        else:
            sections = read_document(file.path, file.name, file.kind).sections
            text = "\n\n".join(f"{s.heading}\n\n{s.text}".strip() for s in sections) + "\n"
        if not text.strip():
            raise UsageError(f"{file.name}: is empty")
        found[file.group if file.group not in found else file.name] = text
    return found


def _last_tenths(texts: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Held out and kept parts, cut at a line's end."""
    held, kept = {}, {}
    for name, text in texts.items():
        cut = text.rfind("\n", 0, int(len(text) * (1 - HELD_OUT_SHARE))) + 1
        cut = cut or int(len(text) * (1 - HELD_OUT_SHARE))
        kept[name], held[name] = text[:cut], text[cut:]
    return held, kept


def encode_texts(texts: Sequence[str], tokenizer: Tokenizer) -> Tokens:
    """All texts as one stream, each ended by the token that ends texts."""
    end = tokenizer.special.get(SPECIAL[0])
    stream: list[int] = []
    for text in texts:
        stream += tokenizer.encode(text)
        if end is not None:
            stream.append(end)
    return np.array(stream, dtype=np.int32)


def encode_conversations(examples: Sequence[Example], chat: ChatFormat) -> Tokens:
    """All conversations as one stream, in the base's chat format."""
    stream: list[int] = []
    for example in examples:
        stream += chat.example(example.chat()).tokens
    return np.array(stream, dtype=np.int32)


def windows(stream: Tokens, length: int) -> Tokens:
    """[n, length + 1]: every token but the first is predicted once; a short rest is left out."""
    count = max(0, (len(stream) - 1) // length)
    at = np.arange(count)[:, None] * length + np.arange(length + 1)
    found: Tokens = stream[at]
    return found


def epoch_order(texts: int, chats: int, share: float, seed: int) -> list[int]:
    """The windows of one epoch, by number: all `texts`, and of the `chats` behind them as many as
    make up `share`; the order depends on the seed alone."""
    rng = random.Random(seed)
    wanted = chats if not texts or share >= 1 else round(texts * share / (1 - share))
    order = list(range(texts)) if share < 1 else []
    order += [texts + i for i in rng.sample(range(chats), min(chats, wanted))]
    rng.shuffle(order)
    return order
