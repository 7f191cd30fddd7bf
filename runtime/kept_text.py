"""A base's tokenizer and chat template in the form that loads fastest, kept beside its weights.

Same container as the packed weights (runtime/native/packed.py), so `verify` checks it and `clean`
frees it alike. Its data is the tokenizers library's own JSON; the rest stands in the directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import tokenizers

from runtime.chat_format import ChatFormat
from runtime.native.packed import HEAD, LAYOUT, MAGIC, PAGE, read_directory
from runtime.tokenizer import Tokenizer
from specs.base_card import WEIGHTS_FILE
from specs.errors import IntegrityError

TEXT_FILE = "packed-tokenizer.bin"


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
    try:
        directory, raw = _read(file, fingerprint)
        tokenizer = Tokenizer.restored(directory["tokenizer"], raw)
        return tokenizer, ChatFormat(directory["chat_template"], tokenizer, str(weights))
    except (IntegrityError, OSError):
        tokenizer = Tokenizer.from_gguf(weights)
        chat = ChatFormat.from_gguf(weights, tokenizer)
    values, raw = tokenizer.saved()
    directory = {
        "fingerprint": fingerprint,
        "tokenizers": tokenizers.__version__,
        "tokenizer": values,
        "chat_template": chat.template,
        "size": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    with suppress(OSError):
        _write(file, directory, raw)
    return tokenizer, chat


def _read(file: Path, fingerprint: str) -> tuple[dict[str, Any], bytes]:
    with file.open("rb") as stream:
        directory, start = read_directory(stream, file)
        made_from = (directory.get("fingerprint"), directory.get("tokenizers"))
        if made_from != (fingerprint, tokenizers.__version__):
            raise IntegrityError(f"{file}: was made from another base or version")
        stream.seek(start)
        raw = stream.read()
    if hashlib.sha256(raw).hexdigest() != directory["sha256"]:
        raise IntegrityError(f"{file}: was changed, its bytes do not match its digest")
    return directory, raw


def _write(file: Path, directory: dict[str, Any], raw: bytes) -> None:
    head = json.dumps(directory).encode()
    head += b" " * (-(HEAD.size + len(head)) % PAGE)
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(HEAD.pack(MAGIC, LAYOUT, len(head), hashlib.sha256(head).digest()))
            stream.write(head)
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o444)
        temporary.replace(file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
