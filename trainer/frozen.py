"""The base's matrices while they are floats: a few at a time, shared by all workers of a step.

A matrix is dequantised by whichever worker comes to it first and goes back when all have used it,
so that a step pays once per pass for it, and no more than two of a kind ever stand in memory: a
worker that runs ahead waits.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass

import torch

from runtime.model import Model
from runtime.quant import DequantLinear, Linear
from specs.errors import MbpmError
from trainer.lora import TrainableAdapter

DEPTH = 2
"""Matrices of a kind that stand in memory at once."""
HEAD = "head"
Key = tuple[str, int, str]
"""Pass, layer and fused group."""


@dataclass(frozen=True)
class Matrix:
    """A frozen weight beside the scaled B of its adapter: [x, A x] times it is Wx + scale B A x."""

    weight: torch.Tensor  # [out, in + R]
    a: torch.Tensor  # [R, in]: A of all projections, one below another

    @property
    def columns(self) -> int:
        """`in`."""
        return self.a.shape[1]


@dataclass
class _Entry:
    matrix: Matrix | None
    users: int


class Matrices:
    """Where workers take dequantised matrices from."""

    def __init__(self, model: Model, adapter: TrainableAdapter | None) -> None:
        self.model, self.adapter = model, adapter
        first = model.layers[0].linears["qkv"][0]
        assert isinstance(first, DequantLinear)
        self.dtype = first.dtype
        self._users = 1
        self._condition = threading.Condition()
        self._entries: dict[Key, _Entry] = {}
        self._standing: dict[str, int] = defaultdict(int)
        self._buffers: dict[tuple[int, int], list[torch.Tensor]] = defaultdict(list)
        self._aborted = False

    def begin(self, users: int) -> None:
        """Before a step: how many workers will take every matrix."""
        self._users, self._aborted = users, False
        for entry in self._entries.values():  # of a step that failed
            if entry.matrix is not None:
                self._give_back(entry.matrix)
        self._entries.clear()
        self._standing.clear()

    def abort(self) -> None:
        """A worker failed: wake the others."""
        with self._condition:
            self._aborted = True
            self._condition.notify_all()

    def take(self, key: Key) -> Matrix:
        """The matrix of `key`, made now unless another worker made it."""
        group = key[2]
        with self._condition:
            while True:
                if self._aborted:
                    raise MbpmError("another worker of this step failed")
                entry = self._entries.get(key)
                if entry is not None and entry.matrix is not None:
                    return entry.matrix
                if entry is None and self._standing[group] < DEPTH:
                    entry = self._entries[key] = _Entry(None, self._users)
                    self._standing[group] += 1
                    break
                self._condition.wait()
        made = self._make(key)
        with self._condition:
            entry.matrix = made
            self._condition.notify_all()
        return made

    def release(self, key: Key) -> None:
        """A worker is done with what it took."""
        with self._condition:
            entry = self._entries[key]
            entry.users -= 1
            if entry.users == 0:
                del self._entries[key]
                self._standing[key[2]] -= 1
                assert entry.matrix is not None
                self._give_back(entry.matrix)
                self._condition.notify_all()

    def _give_back(self, matrix: Matrix) -> None:
        rows, width = matrix.weight.shape
        self._buffers[rows, width].append(matrix.weight)

    def _make(self, key: Key) -> Matrix:
        _, layer, group = key
        if group == HEAD:
            assert self.model.head is not None
            found: list[Linear] = [self.model.head]
            pairs = []
        else:
            found = self.model.layers[layer].linears[group]
            pairs = [] if self.adapter is None else self.adapter.pairs(layer, group)
        linears = [linear for linear in found if isinstance(linear, DequantLinear)]
        assert len(linears) == len(found), "the trainer's model is made of DequantLinear"
        columns = linears[0].shape[1]
        rows = sum(linear.shape[0] for linear in linears)
        ranks = sum(len(pair.a) for pair in pairs)
        with self._condition:
            spare = self._buffers[rows, columns + ranks]
            weight = spare.pop() if spare else None
        if weight is None:
            shape = (rows, columns + ranks)
            weight = torch.empty(shape, dtype=self.dtype, device=self.model.device)
        at = 0
        for linear in linears:
            linear.weight(weight[at : at + linear.shape[0], :columns])
            at += linear.shape[0]
        with torch.no_grad():
            weight[:, columns:] = 0.0
            at = columns
            for pair in pairs:
                rank = len(pair.a)
                weight[pair.rows, at : at + rank] = (pair.b * pair.scale).to(self.dtype)
                at += rank
            a = torch.cat([p.a.detach().to(self.dtype) for p in pairs]) if pairs else None
        if a is None:
            a = torch.empty(0, columns, dtype=self.dtype, device=self.model.device)
        return Matrix(weight, a)
