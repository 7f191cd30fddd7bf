"""Texts that are nearly the same: MinHash over word triples, confirmed by their real overlap.

Broder, "On the resemblance and containment of documents", 1997; banding as in Leskovec, Rajaraman
and Ullman, "Mining of Massive Datasets", 3.4. 16 bands of 4 rows find a pair of Jaccard similarity
0.8 with probability 1 - (1 - 0.8^4)^16 = 0.9998.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from trainer.data.example import normalise

THRESHOLD = 0.8
BANDS, ROWS = 16, 4
_rng = np.random.default_rng(1997)
_A = _rng.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64)[:, None] * np.uint64(2) + np.uint64(1)
_B = _rng.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64)[:, None]

Shingles = frozenset[int]


def shingles(text: str) -> Shingles:
    """Hashes of a text's word triples; of what has fewer words, of all of it."""
    words = normalise(text).split()
    triples = zip(words, words[1:], words[2:], strict=False) if len(words) > 3 else [words]
    return frozenset(zlib.crc32(" ".join(t).encode()) for t in triples)


def similarity(left: Shingles, right: Shingles) -> float:
    """Jaccard: the share of all triples that both have."""
    return len(left & right) / len(left | right)


class NearIndex:
    """Texts seen so far, to be asked for one that is nearly the same."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._buckets: dict[tuple[int, bytes], int] = {}
        self._texts: list[Shingles] = []

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> int | None:
        """Add a text; the number of an earlier one that is nearly the same, if there is one."""
        marks = shingles(text)
        keys = _keys(marks)
        found = self._match(marks, keys)
        number = len(self._texts)
        self._texts.append(marks)
        for key in keys:
            self._buckets.setdefault(key, number)
        return found

    def find(self, text: str) -> int | None:
        """The number of a text that is nearly the same, if there is one."""
        marks = shingles(text)
        return self._match(marks, _keys(marks))

    def at(self, threshold: float) -> NearIndex:
        """The same texts, asked for what is at least so similar."""
        made = NearIndex(threshold)
        made._buckets, made._texts = self._buckets, self._texts
        return made

    def _match(self, marks: Shingles, keys: Iterable[tuple[int, bytes]]) -> int | None:
        near = {self._buckets[key] for key in keys if key in self._buckets}
        scores = {n: similarity(marks, self._texts[n]) for n in near}
        best = max(scores, key=lambda n: (scores[n], -n), default=None)
        return best if best is not None and scores[best] >= self._threshold else None


def _keys(marks: Shingles) -> list[tuple[int, bytes]]:
    bands = _signature(np.fromiter(marks, np.uint64, len(marks))).reshape(BANDS, ROWS)
    return [(index, band.tobytes()) for index, band in enumerate(bands)]


def _signature(marks: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The least of a*x + b modulo 2**64 over all triples x, for each odd a and its b.

    Multiply-shift hashing (Dietzfelbinger et al., 1997); the order of values is by their top bits.
    """
    smallest = [(_A * part + _B).min(axis=1) for part in _pieces(marks)]
    return np.min(smallest, axis=0)  # type: ignore[no-any-return]


def _pieces(marks: npt.NDArray[np.uint64]) -> Iterator[npt.NDArray[np.uint64]]:
    for at in range(0, len(marks), 4096):
        yield marks[at : at + 4096]
