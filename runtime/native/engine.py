"""The native engine: an `Engine` over packed weights and C++ kernels."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from runtime.context import check_context, check_layer, check_room, no_memory
from runtime.engine import F32, ActiveAdapter, Cache, Forward, Logits
from runtime.modules import PROJECTIONS, module_path
from runtime.native import _native, check_supported, instruction_set
from runtime.native.adapter_file import read_adapter
from runtime.native.packed import PRECISIONS, Packed, Say, open_packed, packed_file
from specs.attach import SUFFIX_A, SUFFIX_B
from specs.errors import DoesNotFitError, UsageError
from specs.stored import read_card

PASS_TOKENS = 128
"""Tokens of a prompt that run in one native call, which bounds the memory of activations."""
BATCH = 8
"""Sequences that run in one native call: as many as share one load of the weights."""
ACTIVE = 16
"""Adapters, each with a range of rows, that one native call takes."""


@dataclass(frozen=True)
class Row:
    """One sequence's next token in a batch."""

    cache: Cache
    token: int
    adapters: Sequence[ActiveAdapter] = ()


def cores() -> int:
    """Threads to compute with: the cores this process may use, or fewer by OMP_NUM_THREADS."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(found or 1, int(asked)) if asked.isdecimal() and int(asked) else found or 1


class NativeEngine:
    """An `Engine` for the processor alone.

    Weights are mapped, not read: 4, 5 and 8 bits as the file has them, activations in 16 bits.
    Keys and values are held in 8 bits (keys of qwen2, whose biases make them uneven, in float16).
    """

    def __init__(
        self,
        base_dir: Path,
        *,
        precision: str = "packed",
        layers: int | None = None,
        threads: int | None = None,
        isa: str = "",
        say: Say = lambda text: None,
    ) -> None:
        """Args:
        precision: `packed`, as the file has it, or `int4`, rounded to 4 bits.
        layers: use only the first ones, for hidden states alone: there are no logits then.
        threads: by default `cores()`.
        isa: instruction set by name; by default what `instruction_set` says.
        say: told in words when weights have to be prepared first.

        Raises:
            UsageError: no such instruction set here, or no such precision.
            DoesNotFitError: there is too little memory.
            UnsupportedError: the engine does not compute models of this shape.
            MbpmError: as `open_packed`.
        """
        self.card = read_card(base_dir)
        if precision not in PRECISIONS:
            raise UsageError(f"the native engine has no precision `{precision}`")
        isa = instruction_set(isa)
        file = packed_file(base_dir, precision)
        try:
            if not file.exists():  # before anything is packed
                from runtime.gguf_file import model_config, open_gguf
                from specs.base_card import WEIGHTS_FILE

                weights = base_dir / WEIGHTS_FILE
                check_supported(model_config(open_gguf(weights)), weights)
            packed = open_packed(base_dir, self.card.fingerprint, precision, say)
            check_supported(packed.config, file)
            self._base = _base(packed, layers, isa, threads or cores())
        except MemoryError:
            raise DoesNotFitError(
                f"no memory for {self.card.name} ({self.card.resident_bytes:,} bytes of weights)"
            ) from None
        self.config = packed.config
        self._layers = self.config.layers if layers is None else min(layers, self.config.layers)
        self._weights = int(packed.bytes.size)
        self._slots: dict[int, _native.Slot] = {}
        self._next_slot = 1
        self._caches: weakref.WeakSet[NativeCache] = weakref.WeakSet()
        self.name = f"native cpu {precision} ({self._base.isa})"

    @property
    def threads(self) -> int:
        """Threads that compute."""
        return self._base.threads

    def new_cache(self, capacity: int) -> NativeCache:
        """Allocate keys and values; see `Engine.new_cache`. Memory is taken as it fills."""
        check_context(self.card, self.config.context_length, capacity)
        try:
            cache = NativeCache(self._base, capacity)
        except MemoryError:
            raise no_memory(self.card, capacity) from None
        self._caches.add(cache)
        return cache

    def forward(
        self,
        cache: Cache,
        tokens: Sequence[int],
        adapters: Sequence[ActiveAdapter] = (),
        *,
        logits: Logits = "last",
        hidden_layer: int | None = None,
    ) -> Forward:
        """Append tokens to the cache; see `Engine.forward`."""
        assert isinstance(cache, NativeCache)
        check_room(cache, len(tokens))
        check_layer(hidden_layer, self._layers)
        ids = self._ids(tokens)
        _check_active(self._active(adapters, 0, 1))
        scored = len(ids) if logits == "all" else 1
        hidden = None
        with self._fits(f"the scores of {scored:,} tokens"):
            scores = np.empty((scored, self.config.vocab_size), np.float32)
            if hidden_layer is not None:
                hidden = np.empty((len(ids), self.config.hidden_size), np.float32)
        for start in range(0, len(ids), PASS_TOKENS):
            piece = ids[start : start + PASS_TOKENS]
            end = start + len(piece)
            part: F32 | None = None
            if logits == "all":
                part = scores[start:end]
            elif logits == "last" and end == len(ids):
                part = scores
            self._run(
                [cache], piece, self._active(adapters, 0, len(piece)), part,
                hidden_layer, None if hidden is None else hidden[start:end],
            )  # fmt: skip
        return Forward(None if logits == "none" else scores, hidden)

    def decode(self, rows: Sequence[Row]) -> F32:
        """One token for each of several sequences, every one with adapters of its own.

        Returns:
            Logits, float32 [rows, vocab_size].

        Raises:
            DoesNotFitError: a cache is full.
        """
        for row in rows:
            check_room(row.cache, 1)
        # all is looked at before any sequence advances
        if len({id(row.cache) for row in rows}) < len(rows):
            raise ValueError("a sequence has one next token, and a cache is there twice")
        ids = self._ids([row.token for row in rows])
        passes = []
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            active = [a for i, row in enumerate(part) for a in self._active(row.adapters, i, i + 1)]
            passes.append((part, _merged(active)))
            _check_active(passes[-1][1])
        with self._fits(f"the scores of {len(rows):,} tokens"):
            scores = np.empty((len(rows), self.config.vocab_size), np.float32)
        for number, (part, active) in enumerate(passes):
            self._run(
                [row.cache for row in part], ids[number * BATCH : (number + 1) * BATCH], active,
                scores[number * BATCH : (number + 1) * BATCH], None, None,
            )  # fmt: skip
        return scores

    def _run(
        self,
        caches: Sequence[Cache],
        tokens: list[int],
        active: list[tuple[_native.Slot, float, int, int]],
        logits: F32 | None,
        hidden_layer: int | None,
        hidden: F32 | None,
    ) -> None:
        held = [c.native for c in caches if isinstance(c, NativeCache)]
        layer = -1 if hidden_layer is None else hidden_layer
        with self._fits(f"{len(tokens):,} tokens more"):
            _native.forward(self._base, held, tokens, active, logits, layer, hidden)

    @contextmanager
    def _fits(self, what: str) -> Iterator[None]:
        """Where memory for `what` is taken: being refused it is told with what is held already."""
        try:
            yield
        except MemoryError:
            held = ", ".join(f"{n:,} of {part}" for part, n in self.memory().items())
            raise DoesNotFitError(
                f"no memory for {what} beside what {self.card.name} holds (bytes: {held})",
                hint="a smaller `--context` needs less, and so does `--pack none`",
            ) from None

    def _ids(self, tokens: Sequence[int]) -> list[int]:
        ids = [int(t) for t in tokens]
        for token in (min(ids, default=0), max(ids, default=0)):
            if not 0 <= token < self.config.vocab_size:
                raise ValueError(
                    f"there is no token {token} (there are {self.config.vocab_size:,})"
                )
        return ids

    def _active(
        self, adapters: Sequence[ActiveAdapter], first: int, last: int
    ) -> list[tuple[_native.Slot, float, int, int]]:
        return [(self._slots[a.slot], a.weight, first, last) for a in adapters if a.weight != 0.0]

    def load_adapter(self, pack_dir: Path) -> int:
        """Load a pack's adapter; see `Engine.load_adapter`."""
        with self._fits("another adapter"):
            tensors, scale = read_adapter(pack_dir, self.card)
        return self.add_adapter(tensors, scale)

    def add_adapter(self, tensors: Mapping[str, F32], scale: float) -> int:
        """Give an adapter that is in memory already a slot.

        Args:
            tensors: float32, named and shaped as in an adapter file, checked (specs.attach).
        """
        pairs = []
        for layer in range(self.config.layers):
            for index, projection in enumerate(PROJECTIONS):
                module = module_path(layer, projection)
                if module + SUFFIX_A in tensors:
                    a, b = (
                        np.ascontiguousarray(tensors[module + s], dtype=np.float32)
                        for s in (SUFFIX_A, SUFFIX_B)
                    )
                    pairs.append((layer, index, a, b, scale))
        with self._fits("another adapter"):
            made = _native.adapter(self._base, pairs)
        slot = self._next_slot
        self._next_slot += 1
        self._slots[slot] = made
        return slot

    def unload_adapter(self, slot: int) -> None:
        """Free a slot's memory, which the next adapter of its rank gets."""
        del self._slots[slot]

    def memory(self) -> dict[str, int]:
        """Bytes held, by part; the weights are mapped and shared between processes."""
        return {
            "weights": self._weights,
            "adapters": sum(s.bytes for s in self._slots.values()) + self._base.spare_bytes,
            "cache": sum(c.native.used_bytes for c in self._caches),
        }

    def read_bandwidth(self) -> float:
        """GB/s of reading the weights with all threads, at best: what decoding cannot pass."""
        return self._base.bandwidth()


class NativeCache:
    """Keys and values of one sequence."""

    def __init__(self, base: _native.Base, capacity: int) -> None:
        self.native = _native.cache(base, capacity)

    @property
    def length(self) -> int:
        """Tokens held."""
        return self.native.length

    @property
    def capacity(self) -> int:
        """Tokens it can hold."""
        return self.native.capacity

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self.native.truncate(length)


def _check_active(active: Sequence[object]) -> None:
    if len(active) > ACTIVE:
        raise UsageError(f"{len(active)} adapters at once are more than the {ACTIVE} allowed")


def _merged(
    active: list[tuple[_native.Slot, float, int, int]],
) -> list[tuple[_native.Slot, float, int, int]]:
    """The same with neighbouring rows of one adapter and weight taken together."""
    merged: list[tuple[_native.Slot, float, int, int]] = []
    for slot, weight, first, last in active:
        if merged and merged[-1][0] is slot and merged[-1][1:] == (weight, merged[-1][2], first):
            merged[-1] = (slot, weight, merged[-1][2], last)
        else:
            merged.append((slot, weight, first, last))
    return merged


def _base(packed: Packed, layers: int | None, isa: str, threads: int) -> _native.Base:
    config = packed.config
    blocks = []
    for layer in range(config.layers)[:layers]:
        block = f"blk.{layer}"
        held = [packed.matrices[f"{block}.{t}.weight"] for _, t in PROJECTIONS.values()]
        vectors = [packed.vectors[f"{block}.{n}.weight"] for n in ("attn_norm", "ffn_norm")]
        vectors += [packed.vectors.get(f"{block}.attn_{x}.bias", -1) for x in "qkv"]
        blocks.append((held, vectors))
    embedding = packed.matrices["token_embd.weight"]
    head = packed.matrices.get("output.weight", embedding) if layers is None else None
    return _native.base(
        packed.bytes, asdict(config), blocks, packed.vectors["output_norm.weight"], embedding, head,
        isa, threads,
    )  # fmt: skip
