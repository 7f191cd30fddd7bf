"""The base's matrices while they are floats: a few at a time, shared by all workers of a step.

A matrix is dequantised by whichever worker comes to it first and goes back when all have used it,
so that a step pays once per pass for it, and no more than two of a kind ever stand in memory: a
worker that runs ahead waits.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from runtime.gguf_file import model_config, open_gguf
from runtime.model import FUSED, Model
from runtime.quant import DequantLinear, Linear
from specs.errors import MbpmError
from trainer.lora import TrainableAdapter
from trainer.passes import passes_on

DEPTH = 2
"""Matrices of a kind that stand in memory at once."""
HEAD = "head"
FORWARD, BACKWARD = "forward", "backward"
Key = tuple[str, int, str]
"""Pass, layer and fused group."""


def load_frozen(weights: Path, device: torch.device, dtype: torch.dtype) -> Model:
    """A base to train on: its matrices stay codes, and are `dtype` while they are used.

    Raises:
        MbpmError: the file is no base that can be computed.
    """
    file = open_gguf(weights)
    return Model(
        file, model_config(file), device, partial(DequantLinear, device=device, dtype=dtype)
    )


@dataclass(frozen=True)
class Matrix:
    """A frozen weight beside the scaled B of its adapter: [x, A x] times it is Wx + scale B A x."""

    weight: torch.Tensor  # [out, in + R]
    a: torch.Tensor  # [R, in]: A of all projections, one below another

    @property
    def columns(self) -> int:
        """`in`."""
        return self.a.shape[1]

    def backward(self, g: torch.Tensor, wants_h: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of h [N, in], which is nothing unless wanted, and of A h [N, R].

        Args:
            g: the gradient of W h + scale B A h, [N, out].
        """
        columns = self.columns
        if not wants_h:
            return g[:, :0], g @ self.weight[:, columns:]
        extended = g @ self.weight
        d_shrunk = extended[:, columns:].clone()
        dh = extended[:, :columns]
        if len(self.a):
            dh.addmm_(d_shrunk, self.a)
        return dh, d_shrunk


@dataclass
class _Entry:
    matrix: Matrix | None
    users: int


class Matrices:
    """Where workers take dequantised matrices from."""

    def __init__(
        self, model: Model, adapter: TrainableAdapter | None, *, recompute: bool = False
    ) -> None:
        """Args:
        recompute: every layer runs again in the backward pass.
        """
        self.model, self.adapter, self.recompute = model, adapter, recompute
        self._passes = passes_on(model.device.type)
        first = model.layers[0].linears["qkv"][0]
        assert isinstance(first, DequantLinear)
        self.dtype = first.dtype
        self._users = 1
        self._condition = threading.Condition()
        self._entries: dict[Key, _Entry] = {}
        self._standing: dict[str, int] = defaultdict(int)
        self._buffers: dict[tuple[int, int], list[torch.Tensor]] = defaultdict(list)
        self._aborted = False
        self._rounded: dict[str, torch.Tensor] | None = None

    def begin(self, users: int) -> None:
        """Before a step: how many workers will take every matrix."""
        self._users, self._aborted = users, False
        self._rounded = None if self.adapter is None else self.adapter.rounded(self.dtype)
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
        while True:
            with self._condition:
                if self._aborted:
                    raise MbpmError("another worker of this step failed")
                entry = self._entries.get(key)
                if entry is not None and entry.matrix is not None:
                    return entry.matrix
                # while another worker makes it, the one behind it can be made
                wanted = key if entry is None else self._behind(key)
                if wanted is None or not self._free(wanted):
                    self._condition.wait()
                    continue
                made_now = self._entries[wanted] = _Entry(None, self._users)
                self._standing[wanted[2]] += 1
            made = self._make(wanted)
            with self._condition:
                made_now.matrix = made
                self._condition.notify_all()

    def _free(self, key: Key) -> bool:
        return key not in self._entries and self._standing[key[2]] < DEPTH

    def _behind(self, key: Key) -> Key | None:
        """What everyone takes next."""
        when, layer, group = key
        if group == HEAD:
            return None
        back = when == BACKWARD and not self.recompute
        order = [*reversed(FUSED)] if back else [*FUSED]
        at = order.index(group) + 1
        if at < len(order):
            return when, layer, order[at]
        layer += -1 if when == BACKWARD else 1
        return (when, layer, order[0]) if 0 <= layer < len(self.model.layers) else None

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
            self._passes.dequantise(linear, weight[at : at + linear.shape[0], :columns])
            at += linear.shape[0]
        if not pairs:
            return Matrix(weight, weight.new_empty(0, columns))
        assert self._rounded is not None
        if len(pairs) > 1:
            weight[:, columns:] = 0.0
        at = columns
        for pair in pairs:
            _, b = pair.names
            weight[pair.rows, at : at + len(pair.a)] = self._rounded[b]
            at += len(pair.a)
        return Matrix(weight, torch.cat([self._rounded[pair.names[0]] for pair in pairs]))
