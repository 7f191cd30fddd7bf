"""An engine without a model: it remembers which token was run under which adapters, and answers
with a fixed text. Its cache is what tests of sessions look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from runtime.engine import ActiveAdapter, Cache, Forward, Logits, ModelConfig
from specs.errors import DoesNotFitError

HIDDEN = 8

Cell = tuple[int, tuple[int, ...]]
"""A token and the slots of the adapters it was run under."""


@dataclass
class FakeCache:
    """Cells in the order they were written."""

    capacity: int
    cells: list[Cell] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.cells)

    def truncate(self, length: int) -> None:
        assert 0 <= length <= len(self.cells)
        del self.cells[length:]


class FakeEngine:
    """Continues every cache with `answer`, then with `end`, whatever was asked.

    `hidden` rows hold the token id in every place, so a feature tells which tokens it pooled.
    """

    name = "fake"

    def __init__(self, vocab_size: int, answer: Sequence[int], end: int) -> None:
        self.config = ModelConfig(
            "llama", 2, HIDDEN, 16, 1, 1, HIDDEN, vocab_size, 10_000, 1e4, 1e-5, False
        )
        self.answer, self.end = list(answer), end
        self.caches: list[FakeCache] = []
        self.runs: list[list[Cell]] = []
        self.loaded: list[Path] = []

    def new_cache(self, capacity: int) -> FakeCache:
        self.caches.append(FakeCache(capacity))
        return self.caches[-1]

    def forward(
        self,
        cache: Cache,
        tokens: Sequence[int],
        adapters: Sequence[ActiveAdapter] = (),
        *,
        logits: Logits = "last",
        hidden_layer: int | None = None,
    ) -> Forward:
        assert isinstance(cache, FakeCache)
        if cache.length + len(tokens) > cache.capacity:
            raise DoesNotFitError("the cache is full")
        cells = [(t, tuple(a.slot for a in adapters)) for t in tokens]
        cache.cells += cells
        self.runs.append(cells)
        scores = None
        if logits == "last":
            scores = np.zeros((1, self.config.vocab_size), dtype=np.float32)
            scores[0, self._next([c[0] for c in cache.cells])] = 50
        rows = np.repeat(np.array(tokens, dtype=np.float32)[:, None], HIDDEN, axis=1)
        return Forward(scores, None if hidden_layer is None else rows)

    def _next(self, tokens: list[int]) -> int:
        for done in range(len(self.answer), 0, -1):
            if tokens[-done:] == self.answer[:done]:
                return self.answer[done] if done < len(self.answer) else self.end
        return self.answer[0]

    def load_adapter(self, pack_dir: Path) -> int:
        self.loaded.append(pack_dir)
        return len(self.loaded)

    def unload_adapter(self, slot: int) -> None:
        raise NotImplementedError

    def memory(self) -> dict[str, int]:
        return {"weights": 0, "adapters": 0, "cache": 0}

    def written(self) -> list[Cell]:
        """Every cell ever run, in order."""
        return [cell for run in self.runs for cell in run]
