"""Keys and values of prompts, computed once by the runtime's own forward pass and reused.

With the activation `answer` nothing before the assistant's turn depends on the adapter: what every
prompt begins with is read once, each different prompt once more, and every epoch reuses both.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from runtime.model import Model
from runtime.prefix import common_prefix
from specs.errors import DoesNotFitError, disk_full
from trainer.batches import Row
from trainer.memory import CHUNK, megabytes
from trainer.packing import Packed

Prompt = tuple[int, ...]


def bytes_per_token(model: Model, dtype: torch.dtype) -> int:
    """Bytes that one token's keys and values take where they are kept."""
    c = model.config
    return 2 * c.layers * c.kv_heads * c.head_dim * _kept_type(dtype).itemsize


def _kept_type(dtype: torch.dtype) -> torch.dtype:
    """As exact as the runtime's own cache: float16 unless everything is float32."""
    return torch.float32 if dtype == torch.float32 else torch.float16


class _Store:
    """A `runtime.model.KVStore` that joins B sequences to one that all of them begin with."""

    def __init__(self, dtype: torch.dtype, before: torch.Tensor | None) -> None:
        self.length = 0 if before is None else before.shape[3]
        self.dtype, self.before = dtype, before  # [layers, 2, K, L, d]
        self.layers: list[torch.Tensor] = []

    def append(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.layers.append(torch.stack([k, v]).to(_kept_type(self.dtype)))
        k, v = k.to(self.dtype), v.to(self.dtype)
        if self.before is None:
            return k, v
        earlier = self.before[layer].to(self.dtype)[:, None].expand(-1, len(k), -1, -1, -1)
        return torch.cat([earlier[0], k], dim=2), torch.cat([earlier[1], v], dim=2)


class Prompts:
    """The keys and values before the adapter begins to act, of all rows of a run."""

    def __init__(
        self,
        model: Model,
        rows: Sequence[Row],
        dtype: torch.dtype,
        *,
        kept: int = 0,
        spilled: int = 0,
        folder: Path | None = None,
    ) -> None:
        """Args:
        kept, spilled: tokens whose keys and values stay in memory, and in a file in `folder`; the
            rest is read again whenever a batch needs it.
        """
        self.model, self.dtype = model, dtype
        self.common = common_start(rows)
        first = next((r.tokens[: self.common] for r in rows if r.start), ())
        self._shared: torch.Tensor | None = None
        if first:
            self._shared = self._read([first])[0]
        own = {r.tokens[: r.start] for r in rows if r.start > self.common}
        self._places: dict[Prompt, torch.Tensor] = {}
        self._in_memory: set[Prompt] = set()
        self._folder, self._spilled = folder, 0
        chosen = []
        for prompt in sorted(own, key=lambda p: (len(p), p)):
            length = len(prompt) - self.common
            if kept >= length:
                kept -= length
                self._in_memory.add(prompt)
            elif spilled >= length:
                spilled -= length
                self._spilled += length
            else:
                break
            chosen.append(prompt)
        self._chunks = self._cut(chosen)

    def fill(self, run: Callable[[Callable[[int], None], Sequence[int]], object]) -> None:
        """Read what is to be kept.

        Args:
            run: calls a function for every number, in any order, on any thread.
        """
        c = self.model.config
        per_token = 2 * c.layers * c.kv_heads * c.head_dim
        kind = _kept_type(self.dtype)
        file = self._file(self._spilled * per_token, kind) if self._spilled else None
        at = 0
        homes: dict[Prompt, torch.Tensor] = {}
        for prompt in (p for chunk in self._chunks for p in chunk):
            length = len(prompt) - self.common
            shape = (c.layers, 2, c.kv_heads, length, c.head_dim)
            if prompt in self._in_memory:
                homes[prompt] = torch.empty(shape, dtype=kind)
            else:
                assert file is not None
                homes[prompt] = file[at : at + length * per_token].view(shape)
                at += length * per_token

        def read(number: int) -> None:
            chunk = self._chunks[number]
            for prompt, made in zip(chunk, self._read(chunk), strict=True):
                self._places[prompt] = homes[prompt].copy_(made)

        run(read, range(len(self._chunks)))

    def _file(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """Numbers in a file that is gone when the process ends.

        Raises:
            DoesNotFitError: the disk has no room for it.
        """
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix="prompts.") as file:
            self._allocate(file.fileno(), count * dtype.itemsize)
            return torch.from_file(file.name, shared=True, size=count, dtype=dtype)

    @staticmethod
    def _allocate(file: int, size: int) -> None:
        # a hole that the disk cannot fill later would end the process without a word
        grow = getattr(os, "posix_fallocate", None)
        try:
            grow(file, 0, size) if grow is not None else os.truncate(file, size)
        except OSError as error:
            if not disk_full(error):
                raise
            raise DoesNotFitError(
                f"no space for {megabytes(size)} of prompts' keys and values",
                hint="free some space and give the same command again",
            ) from None

    def before(self, packed: Packed) -> list[torch.Tensor] | None:
        """Per block, the keys and values before its rows: [layers, 2, B, K, P, d]."""
        missing = {
            r.tokens[: r.start]
            for b in packed.blocks
            for r in b.rows
            if r.start > self.common and r.tokens[: r.start] not in self._places
        }
        read: dict[Prompt, torch.Tensor] = {}
        for chunk in self._cut(sorted(missing, key=lambda p: (len(p), p))):
            read.update(zip(chunk, self._read(chunk), strict=True))
        if all(b.prompt_width == 0 for b in packed.blocks):
            return None
        c = self.model.config
        made = []
        for block in packed.blocks:
            shape = (c.layers, 2, len(block.rows), c.kv_heads, block.prompt_width, c.head_dim)
            keys = torch.zeros(shape, dtype=self.dtype, device=self.model.device)
            for i, row in enumerate(block.rows):
                if self._shared is not None:
                    keys[:, :, i, :, : self.common] = self._shared
                if row.start > self.common:
                    prompt = row.tokens[: row.start]
                    own = read[prompt] if prompt in read else self._places[prompt]
                    keys[:, :, i, :, self.common : row.start] = own
            made.append(keys)
        return made

    def _cut(self, prompts: Sequence[Prompt]) -> list[list[Prompt]]:
        """Chunks of prompts sorted by length."""
        chunks: list[list[Prompt]] = []
        for prompt in prompts:
            if chunks and (len(prompt) - self.common) * (len(chunks[-1]) + 1) <= CHUNK:
                chunks[-1].append(prompt)
            else:
                chunks.append([prompt])
        return chunks

    @torch.no_grad()
    def _read(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """Keys and values of each prompt behind what all begin with: [layers, 2, K, p, d]."""
        begin = 0 if self._shared is None else self.common
        width = max(len(p) for p in prompts) - begin
        tokens = torch.zeros(len(prompts), width, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            tokens[i, : len(prompt) - begin] = torch.tensor(prompt[begin:])
        store = _Store(self.dtype, self._shared)
        self.model.forward(tokens.to(self.model.device), store)
        return [
            torch.stack([layer[:, i, :, : len(p) - begin] for layer in store.layers])
            for i, p in enumerate(prompts)
        ]


def common_start(rows: Sequence[Row]) -> int:
    """How many tokens all prompts begin with."""
    prompts = [r.tokens[: r.start] for r in rows if r.start]
    if not prompts:
        return 0
    first, shortest = min(prompts), min(map(len, prompts))
    return common_prefix(first, max(prompts), shortest)
