"""Adapters of the Hugging Face Hub, fetched through huggingface_hub into its own cache."""

from __future__ import annotations

import os
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.hub_datasets import told
from specs.errors import MbpmError, NetworkError, UsageError

if TYPE_CHECKING:
    from mbpm.state import State

SCHEME = "hf:"
MAX_FILE_BYTES = 4 * 1000**3
_WANTED = ("adapter_config.json", "adapter_model.safetensors")
_CARD = "README.md"
_HEAD_BYTES = 1 << 16
_STRING = 8
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of the values of GGUF's metadata that are neither texts nor arrays, by their type."""
_REFERENCE = re.compile(r"([A-Za-z0-9._-]+/[A-Za-z0-9._-]+)(?:@([A-Za-z0-9._/-]{1,200}))?")


@dataclass(frozen=True)
class HubAdapter:
    """What was fetched."""

    repo: str
    commit: str
    source: Path
    """A folder in PEFT's format, or a GGUF file."""
    card: Path | None
    """The model card."""


def fetch(state: State, text: str) -> HubAdapter:
    """Fetch the adapter of `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`.

    Raises:
        UsageError: the text is no such name, or the repository holds no adapter to be imported.
        NotFoundError, AuthError, NetworkError: as the hub answers.
    """
    match = _REFERENCE.fullmatch(text.removeprefix(SCHEME))
    if match is None:
        raise UsageError(f"`{text}` is not `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`")
    repo, revision = match[1], match[2]
    if state.offline:
        raise NetworkError(f"`{text}` is on the hub, and the network is switched off (`--offline`)")
    # read when the library is first imported
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    from huggingface_hub import HfApi, hf_hub_download, hf_hub_url
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    with told(text, "repository"):
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
        sizes = {f.rfilename: f.size or 0 for f in info.siblings or ()}
        names = _files(text, sizes)
        commit = info.sha or revision or "main"
        paths = {}
        for name in names:
            if sizes[name] > MAX_FILE_BYTES:
                raise UsageError(f"{text}: {name} is {sizes[name]:,} bytes, too large an adapter")
            if name.endswith(".gguf"):
                _check_kind(state, text, name, hf_hub_url(repo, name, revision=commit))
            state.out.note(f"fetching {name} of {repo} ({sizes[name]:,} bytes)")
            paths[name] = Path(hf_hub_download(repo, name, revision=commit))
    first = paths[names[0]]
    folder = first.parent if names[0] == _WANTED[0] else first
    return HubAdapter(repo, commit, folder, paths.get(_CARD))


def _files(text: str, sizes: dict[str, int]) -> list[str]:
    """What to fetch, the adapter first."""
    card = [_CARD] if _CARD in sizes else []
    if all(name in sizes for name in _WANTED):
        return [*_WANTED, *card]
    models = [name for name in sizes if name.endswith(".gguf")]
    if len(models) == 1:
        return [*models, *card]
    if "adapter_model.bin" in sizes:
        raise UsageError(
            f"{text}: holds its adapter as a pickle (adapter_model.bin), which can run code and is "
            "never read",
            hint="ask its author for adapter_model.safetensors, or load and save it with a newer "
            "peft somewhere safe",
        )
    raise UsageError(
        f"{text}: holds no adapter (expected {' and '.join(_WANTED)}, or one GGUF file)"
    )


def _check_kind(state: State, text: str, name: str, url: str) -> None:
    """Refuse a GGUF file whose first bytes say that it is no adapter, before all of it is fetched.

    Raises:
        UsageError: they say so.
    """
    from mbpm.fetch.hub import authorization
    from mbpm.fetch.retry import AgainError

    head = b""
    # where the bytes cannot be had, fetching the file says why
    with (
        suppress(AgainError, MbpmError),
        state.network.client.open(
            url, {"Range": f"bytes=0-{_HEAD_BYTES - 1}"}, authorization()
        ) as answer,
    ):
        if answer.status_code in (200, 206):
            for piece in answer.iter_raw():
                head += piece
                if len(head) >= _HEAD_BYTES:
                    break
    kind = gguf_kind(head)
    if kind not in (None, "adapter"):
        raise UsageError(
            f"{text}: {name} is no adapter (`general.type` is {kind!r})",
            hint="a base is installed with `mbpm base install`",
        )


def gguf_kind(head: bytes) -> str | None:
    """What the first bytes of a GGUF file say that it is; None where they do not.

    Old files of models do not say it, but how many layers they have.
    """
    try:
        magic, _, _, pairs = struct.unpack_from("<4sIQQ", head)
        at = 24
        for _ in range(pairs if magic == b"GGUF" else 0):
            key, at = _text_at(head, at)
            (kind,) = struct.unpack_from("<I", head, at)
            at += 4
            if key.endswith(".block_count"):
                return "model"
            if kind != _STRING:
                at += _SIZES[kind]
                continue
            value, at = _text_at(head, at)
            if key == "general.type":
                return value
    except (struct.error, KeyError, UnicodeDecodeError):
        pass
    return None


def _text_at(head: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", head, at)
    end = at + 8 + length
    if end > len(head):
        raise struct.error("the text goes on")
    return head[at + 8 : end].decode(), end
