"""A base's tokenizer and chat template in the form that loads fastest, kept beside its weights.

Same container as the packed weights (runtime/kept_file.py), so `verify` checks it and `clean`
frees it alike. Its data are tables for short texts (runtime/byte_pairs.py), and for long ones the
tokenizers library's own JSON; the rest stands in the directory.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import tokenizers

from runtime.chat_format import ChatFormat
from runtime.kept_file import directory_room, making, read_directory, understood, write_head
from runtime.tokenizer import Tokenizer
from specs.errors import IntegrityError
from specs.file_names import WEIGHTS_FILE

TEXT_FILE = "packed-tokenizer.bin"
WAY = 1
"""How the file is made: one made another way is made again."""


def open_text(base_dir: Path, fingerprint: str) -> tuple[Tokenizer, ChatFormat]:
    """The tokenizer and chat format of a base, from the kept file where it fits the base.

    Where it is missing, damaged, of another base or of another version of the library, both are
    read from `weights.gguf` and the file is made anew; a folder that only reads stays as it is.

    Args:
        fingerprint: the base's, which covers tokenizer and template.

    Raises:
        IntegrityError, MbpmError: `weights.gguf` cannot be used.
    """
    file, weights = base_dir / TEXT_FILE, base_dir / WEIGHTS_FILE
    unfit = True
    try:
        with file.open("rb") as stream:
            return _read(stream, file, str(weights), fingerprint)
    except (IntegrityError, FileNotFoundError):
        pass
    except OSError:
        unfit = False  # whatever is in the way of reading it, the file may be sound
    tokenizer, chat = _read_weights(weights)
    if unfit:
        with suppress(OSError):
            _write(file, fingerprint, tokenizer, chat)
    return tokenizer, chat


def verify_text(file: Path, fingerprint: str) -> None:
    """Compare a kept file with what `weights.gguf` beside it gives.

    Its own digests find damage; this finds what somebody put there. What would be made again for
    its version or base is not looked at.

    Raises:
        IntegrityError: it says something else.
        MbpmError: `weights.gguf` cannot be used.
        OSError: one cannot be read.
    """
    with file.open("rb") as stream:
        directory, _ = read_directory(stream, file)
        with understood(file):
            if not _fits(directory, fingerprint):
                return
        made, raw = _made(fingerprint, *_read_weights(file.parent / WEIGHTS_FILE))
        stream.seek(directory_room(made))
        if directory != json.loads(json.dumps(made)) or stream.read() != raw:
            raise IntegrityError(f"{file}: says something else than {WEIGHTS_FILE} does")


def _fits(directory: Mapping[str, Any], fingerprint: str) -> bool:
    found = directory["fingerprint"], directory["way"], directory["tokenizers"]
    return found == (fingerprint, WAY, tokenizers.__version__)


def _read_weights(weights: Path) -> tuple[Tokenizer, ChatFormat]:
    tokenizer = Tokenizer.from_gguf(weights)
    return tokenizer, ChatFormat.from_gguf(weights, tokenizer)


def _read(
    stream: BinaryIO, file: Path, weights: str, fingerprint: str
) -> tuple[Tokenizer, ChatFormat]:
    directory, start = read_directory(stream, file)
    with understood(file):
        if not _fits(directory, fingerprint):
            raise IntegrityError(f"{file}: was made from another base or version")
        tables, size = directory["tables"], directory["tables"]["size"]
        pages = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))[start:]
        if hashlib.sha256(pages[:size]).hexdigest() != tables["sha256"]:
            raise IntegrityError(f"{file}: was changed, its bytes do not match its digest")

        def library() -> bytes:
            if hashlib.sha256(pages).hexdigest() == directory["sha256"]:
                return bytes(pages[size:])
            truth, chat = _read_weights(Path(weights))
            with suppress(OSError):
                _write(file, fingerprint, truth, chat)
            return truth.saved()[2]

        tokenizer = Tokenizer.restored(directory["tokenizer"], pages[:size], library)
        return tokenizer, ChatFormat(directory["chat_template"], tokenizer, weights)


def _write(file: Path, fingerprint: str, tokenizer: Tokenizer, chat: ChatFormat) -> None:
    directory, raw = _made(fingerprint, tokenizer, chat)
    start = directory_room(directory)
    with making(file) as stream:
        stream.seek(start)
        stream.write(raw)
        write_head(stream, directory, start)


def _made(fingerprint: str, tokenizer: Tokenizer, chat: ChatFormat) -> tuple[dict[str, Any], bytes]:
    """The directory and the data of a file."""
    values, tables, library = tokenizer.saved()
    raw = tables + library
    directory = {
        "fingerprint": fingerprint,
        "way": WAY,
        "tokenizers": tokenizers.__version__,
        "tokenizer": values,
        "chat_template": chat.template,
        "tables": {"size": len(tables), "sha256": hashlib.sha256(tables).hexdigest()},
        "size": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    return directory, raw
