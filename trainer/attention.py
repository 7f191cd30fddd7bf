"""Causal attention of many short sequences, forward and backward, as batched matrix products.

On a CPU this is several times faster than the flash kernel of PyTorch 2.13, whose backward pass is
slow for heads of 64: scores of a few rows stay in the processor's cache, and are made again for the
backward pass instead of being kept. On CUDA PyTorch's own kernels do it.

Shapes: B sequences, T queries, S keys, H heads, K key/value heads, G = H / K, d head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from trainer.passes import TorchPasses

SCORES = 1 << 21
"""Scores computed at once: 4 MB in bfloat16."""
QUERIES = 256
"""Queries of a sequence taken at once where there are more; keys behind them are left out."""


def attend(
    passes: TorchPasses, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Attention of [B, H, T, d] over [B, K, S, d], S >= T, the last T keys being the queries' own.

    Args:
        mask: [B or 1, 1, T, S], 0 where attention may look and -infinity elsewhere; nothing behind
            a query's own key may be seen.

    Returns:
        [B, H, T, d].
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    q, k, v = (t.contiguous() for t in (q, k, v))
    out = torch.empty_like(q)
    for piece in _pieces(q, k):
        p = _probabilities(passes, q, k, mask, piece)
        _write(p, _of_keys(v, piece), out, piece)
    return out


def attend_backward(
    passes: TorchPasses,
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q [B, H, T, d] and of the last T keys and values [B, K, T, d]."""
    length = q.shape[2]
    own = k.shape[2] - length
    if q.device.type != "cpu":
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_() for t in (q, k, v)]
            out = F.scaled_dot_product_attention(
                leaves[0], leaves[1], leaves[2], attn_mask=mask, enable_gqa=True
            )
            dq, dk, dv = torch.autograd.grad(out, leaves, grad)
        return dq, dk[:, :, own:], dv[:, :, own:]
    grad, q, k, v = (t.contiguous() for t in (grad, q, k, v))
    dq = torch.empty_like(q)
    dk, dv = torch.zeros_like(k), torch.zeros_like(v)
    scale = q.shape[-1] ** -0.5
    for piece in _pieces(q, k):
        p = _probabilities(passes, q, k, mask, piece)
        g = _of_queries(grad, piece)
        _of_keys(dv, piece).baddbmm_(p.transpose(1, 2), g)
        ds = passes.softmax_backward(torch.bmm(g, _of_keys(v, piece).transpose(1, 2)), p, scale)
        _write(ds, _of_keys(k, piece), dq, piece)
        _of_keys(dk, piece).baddbmm_(ds.transpose(1, 2), _of_queries(q, piece))
    return dq, dk[:, :, own:], dv[:, :, own:]


@dataclass(frozen=True)
class _Piece:
    """What is computed at once."""

    rows: slice
    queries: slice
    keys: slice
    heads: int
    """Of keys and values."""
    whole: bool
    """Whether it is all there is; then nothing is cut, since small operations cost as well."""


def _pieces(q: torch.Tensor, k: torch.Tensor) -> Iterator[_Piece]:
    count, heads, length, _ = q.shape
    own = k.shape[2] - length
    queries = min(length, QUERIES)
    rows = max(1, SCORES // (heads * queries * k.shape[2]))
    for row in range(0, count, rows):
        for at in range(0, length, queries):
            end = min(at + queries, length)
            whole = rows >= count and queries == length
            yield _Piece(
                slice(row, row + rows), slice(at, end), slice(0, own + end), k.shape[1], whole
            )


def _of_queries(x: torch.Tensor, piece: _Piece) -> torch.Tensor:
    """[B, H, T, d] -> [b K, G t, d]: the queries that share a key head, one after another."""
    part = x if piece.whole else x[piece.rows, :, piece.queries]
    return part.reshape(len(part) * piece.heads, -1, x.shape[-1])


def _of_keys(x: torch.Tensor, piece: _Piece) -> torch.Tensor:
    """[B, K, S, d] -> [b K, s, d], without a copy."""
    part = x if piece.whole else x[piece.rows, :, piece.keys]
    return part.view(len(part) * piece.heads, -1, x.shape[-1])


def _write(p: torch.Tensor, x: torch.Tensor, out: torch.Tensor, piece: _Piece) -> None:
    """p [b K, G t, s] times x [b K, s, d] into its place in [B, H, T, d]."""
    part = out if piece.whole else out[piece.rows, :, piece.queries]
    if part.is_contiguous():
        torch.bmm(p, x, out=part.view(len(p), -1, x.shape[-1]))
    else:
        part.copy_(torch.bmm(p, x).view(part.shape))


def _probabilities(
    passes: TorchPasses, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor, piece: _Piece
) -> torch.Tensor:
    """Softmax of the scores, [b K, G t, s]."""
    scores = torch.bmm(_of_queries(q, piece), _of_keys(k, piece).transpose(1, 2))
    seen = mask
    if not piece.whole:
        seen = mask[piece.rows if len(mask) > 1 else slice(None), :, piece.queries, piece.keys]
    length, size = seen.shape[2], q.shape[-1]
    grouped = scores.view(len(scores) // piece.heads, q.shape[1], length, -1)
    return passes.softmax(grouped, seen, size**-0.5).view(scores.shape)
