"""Byte-pair merging of short texts, from tables that are read where they lie in a file.

The tokenizers library builds its own tables at every start, which takes longer than anything else
on the way to an answer's first token. These hold the same merges (Sennrich et al., arXiv
1508.07909) and give the same ids; for long texts the library is faster.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

LONGEST_PIECE = 200
"""Letters of a piece from which on merging, which is quadratic here, is left to the library."""


class Tables:
    """The merges and tokens of one vocabulary.

    The bytes of `build`: keys (uint64 [merges], left id << 32 | right id, sorted), ranks and merged
    ids (uint32 [merges] each), where each token's bytes end (uint32 [tokens]), the tokens' bytes.
    Numbers are those of this machine, as everything in a file that stays on it.
    """

    def __init__(self, values: Mapping[str, Any], data: memoryview) -> None:
        """Args:
        values, data: what `build` returned.

        Raises:
            LookupError, TypeError, ValueError: they do not belong together.
        """
        merges, tokens = int(values["merges"]), int(values["tokens"])
        self._letters = {str(k): int(v) for k, v in values["letters"].items()}
        self._keys = data[: 8 * merges].cast("Q")
        numbers = data[8 * merges : 16 * merges + 4 * tokens].cast("I")
        self._ranks, self._merged = numbers[:merges], numbers[merges : 2 * merges]
        self._ends = numbers[2 * merges :]
        self._bytes = data[16 * merges + 4 * tokens :]
        if len(self._ends) != tokens or (tokens and self._ends[-1] != len(self._bytes)):
            raise ValueError("the tables of the tokenizer are not of the size they say")

    @staticmethod
    def build(
        vocabulary: Mapping[str, int], merges: Sequence[Sequence[str]], tokens: Sequence[bytes]
    ) -> tuple[dict[str, Any], bytes]:
        """Make tables.

        Args:
            vocabulary: token, in letters -> id.
            merges: pairs of tokens, the first first to be merged.
            tokens: by id, the bytes each stands for.

        Returns:
            Plain values, and the bytes.
        """
        import numpy as np

        ranked: dict[int, tuple[int, int]] = {}
        for rank, (left, right) in enumerate(merges):
            key = vocabulary[left] << 32 | vocabulary[right]
            ranked[key] = (rank, vocabulary[left + right])
        order = sorted(ranked)
        data = b"".join(
            [
                np.array(order, np.uint64).tobytes(),
                np.array([ranked[k][0] for k in order], np.uint32).tobytes(),
                np.array([ranked[k][1] for k in order], np.uint32).tobytes(),
                np.cumsum([len(t) for t in tokens], dtype=np.uint32).tobytes(),
                *tokens,
            ]
        )
        letters = {token: i for token, i in vocabulary.items() if len(token) == 1}
        return {"merges": len(order), "tokens": len(tokens), "letters": letters}, data

    def __len__(self) -> int:
        return len(self._ends)

    def token(self, number: int) -> bytes:
        """The bytes one token stands for."""
        if not 0 <= number < len(self._ends):
            raise IndexError(f"{number} is not a token")
        return bytes(self._bytes[self._ends[number - 1] if number else 0 : self._ends[number]])

    def merge(self, piece: str) -> list[int]:
        """Ids of one piece of text, in letters; letters that are no token are left out."""
        ids = [self._letters[c] for c in piece if c in self._letters]
        found = [self._find(a, b) for a, b in pairwise(ids)]
        while found:
            best = min(found)
            if best == _NONE:
                break
            at = found.index(best)  # the leftmost of its kind
            ids[at : at + 2] = [best[1]]
            del found[at]
            if at:
                found[at - 1] = self._find(ids[at - 1], ids[at])
            if at < len(found):
                found[at] = self._find(ids[at], ids[at + 1])
        return ids

    def _find(self, left: int, right: int) -> tuple[int, int]:
        """Rank and id of what two tokens become."""
        key = left << 32 | right
        at = bisect_left(self._keys, key)
        if at < len(self._keys) and self._keys[at] == key:
            return self._ranks[at], self._merged[at]
        return _NONE


_NONE = (1 << 40, -1)
