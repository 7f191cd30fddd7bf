"""Rows packed one behind another, without padding, for everything but attention.

Projections, norms and the head see one flat run of tokens. Attention runs over blocks of rows of
like length, so that no token sees another row's: positions begin anew in every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer.batches import Row

WASTE, FREE = 1.5, 1 << 15
"""Scores of a block may be this many times those needed, and this many more."""


@dataclass(frozen=True)
class Block:
    """Rows whose attention runs as one rectangle of `width` tokens each."""

    rows: tuple[Row, ...]
    begin: int
    end: int
    """Its flat tokens."""
    width: int
    prompt_width: int
    """Keys before the first of the rows' own tokens, padding included."""
    rectangle: torch.Tensor | None
    """[rows * width] index of each cell's flat token, from `begin`; None where rows fill it."""
    flat: torch.Tensor | None
    """[end - begin] cell of each flat token; None where rows fill it."""
    mask: torch.Tensor
    """[rows or 1, 1, width, prompt_width + width], 0 or -infinity."""


@dataclass(frozen=True)
class Packed:
    """A batch: N flat tokens that the adapter acts on, of which M predict a counted one."""

    tokens: torch.Tensor  # [N] ids
    positions: torch.Tensor  # [N]
    blocks: tuple[Block, ...]
    predict: torch.Tensor  # [M] flat tokens, in the order of the rows given
    targets: torch.Tensor  # [M] ids
    counts: tuple[int, ...]
    """Counted tokens of every row given."""


def pack(rows: Sequence[Row], device: torch.device, dtype: torch.dtype) -> Packed:
    """Pack rows; the last token of a row is only ever a target."""
    order = sorted(range(len(rows)), key=lambda i: (_length(rows[i]), rows[i].start))
    begins, at = [0] * len(rows), 0
    for i in order:
        begins[i] = at
        at += _length(rows[i])
    tokens = torch.empty(at, dtype=torch.long)
    positions = torch.empty(at, dtype=torch.long)
    predict, targets = [], []
    for row, begin in zip(rows, begins, strict=True):
        own = torch.tensor(row.tokens[row.start :])
        length = len(own) - 1
        tokens[begin : begin + length] = own[:-1]
        positions[begin : begin + length] = torch.arange(row.start, row.start + length)
        first = row.answer - row.start - 1
        predict.append(torch.arange(begin + first, begin + length))
        targets.append(own[first + 1 :])
    blocks, begin = [], 0
    for group in _groups([rows[i] for i in order]):
        blocks.append(_block(group, begin, device, dtype))
        begin = blocks[-1].end
    return Packed(
        tokens.to(device),
        positions.to(device),
        tuple(blocks),
        torch.cat(predict).to(device),
        torch.cat(targets).to(device),
        tuple(len(t) for t in targets),
    )


def _length(row: Row) -> int:
    return len(row.tokens) - row.start - 1


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Cut sorted rows where a rectangle would hold too many cells that nobody needs."""
    groups: list[list[Row]] = []
    needed = prompt = 0
    for row in rows:
        length = _length(row)
        scores = length * (row.start + length)
        if groups:
            widest = length * (max(prompt, row.start) + length)
            if widest * (len(groups[-1]) + 1) <= WASTE * (needed + scores) + FREE:
                groups[-1].append(row)
                needed, prompt = needed + scores, max(prompt, row.start)
                continue
        groups.append([row])
        needed, prompt = scores, row.start
    return groups


def _block(rows: list[Row], begin: int, device: torch.device, dtype: torch.dtype) -> Block:
    lengths = torch.tensor([_length(r) for r in rows])
    starts = torch.tensor([r.start for r in rows])
    width, before = int(lengths.max()), int(starts.max())
    cells = torch.arange(width)
    # a cell behind a row's end repeats its last token: it is finite, and nothing looks at it
    rectangle = (lengths.cumsum(0) - lengths)[:, None] + torch.minimum(cells, lengths[:, None] - 1)
    inside = cells < lengths[:, None]
    full = bool(inside.all())
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    same = bool((starts == before).all())
    seen = (torch.arange(before) < starts[:, None])[: 1 if same else None]  # [rows, before]
    count = len(seen)
    allowed = torch.cat([seen[:, None].expand(-1, width, -1), causal.expand(count, -1, -1)], dim=-1)
    mask = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, -torch.inf)
    return Block(
        tuple(rows),
        begin,
        begin + int(lengths.sum()),
        width,
        before,
        None if full else rectangle.reshape(-1).to(device),
        None if full else inside.reshape(-1).nonzero()[:, 0].to(device),
        mask[:, None].to(device),
    )
