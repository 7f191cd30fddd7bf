"""Losses and gradients of batches, computed in parts by workers and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from runtime.model import Model
from trainer.batches import Item, Items
from trainer.distributed import World
from trainer.forward import token_losses
from trainer.frozen import Matrices
from trainer.lora import TrainableAdapter
from trainer.objective import Objective
from trainer.packing import pack
from trainer.prompts import Prompts
from trainer.workers import Workers

Out = TypeVar("Out")


class Steps:
    """What turns items into losses: model, prompts, workers and the other processes."""

    def __init__(
        self,
        model: Model,
        adapter: TrainableAdapter | None,
        prompts: Prompts,
        workers: Workers,
        world: World,
        *,
        recompute: bool = False,
    ) -> None:
        self.model, self.adapter, self.prompts = model, adapter, prompts
        self.workers, self.world, self.recompute = workers, world, recompute
        self.matrices = Matrices(model, adapter, recompute=recompute)

    def gradients(
        self, objective: Objective[Items], parts: Sequence[Sequence[Items]], weight: float
    ) -> float:
        """Set the adapter's gradients to those of a step; its loss.

        Args:
            parts: the step's items; the parts' gradients are added in order.
            weight: what the sum over all items is divided by.
        """
        adapter = self.adapter
        assert adapter is not None
        for flat in adapter.flat.values():
            assert flat.grad is not None
            flat.grad.zero_()
        leaves = list(adapter.tensors.values())

        def one(items: Sequence[Items]) -> torch.Tensor:
            with torch.enable_grad():
                total = self._total(objective, items) / weight
                gradients = torch.autograd.grad(total, leaves)
            flat = torch.cat([g.reshape(-1) for g in gradients])
            return torch.cat([flat, total.detach()[None]])

        loss = 0.0
        for vectors in self._rounds(one, parts):
            for vector in vectors:
                adapter.add_gradients(vector[:-1].to(self.model.device))
                loss += float(vector[-1])
        return loss

    @torch.no_grad()
    def totals(self, objective: Objective[Items], parts: Sequence[Sequence[Items]]) -> list[float]:
        """The objective's sum over every part."""

        def one(items: Sequence[Items]) -> torch.Tensor:
            with torch.no_grad():
                return self._total(objective, items).double()[None].cpu()

        return [float(v) for vectors in self._rounds(one, parts) for v in vectors]

    @torch.no_grad()
    def row_losses(self, parts: Sequence[Sequence[Item]]) -> list[list[float]]:
        """Summed losses in nats of every row of every part."""

        def one(items: Sequence[Item]) -> torch.Tensor:
            with torch.no_grad():
                losses, counts = self._losses(items)
                return (
                    torch.stack([x.sum() for x in torch.split(losses, list(counts))]).double().cpu()
                )

        # parts differ in length, so every process computes all of them
        return [[float(x) for x in v] for v in self._local(one, parts)]

    def _losses(self, items: Sequence[Item]) -> tuple[torch.Tensor, tuple[int, ...]]:
        rows = [row for item in items for row in item.rows]
        packed = pack(rows, self.model.device, self.matrices.dtype)
        before = self.prompts.before(packed)
        losses = token_losses(self.matrices, packed, before, recompute=self.recompute)
        return losses, packed.counts

    def _total(self, objective: Objective[Items], items: Sequence[Items]) -> torch.Tensor:
        losses, counts = self._losses(items)
        return objective.total(items, losses, counts)

    def _local(
        self, function: Callable[[Sequence[Items]], Out], parts: Sequence[Sequence[Items]]
    ) -> list[Out]:
        made: list[Out] = []
        for at in range(0, len(parts), self.workers.count):
            now = parts[at : at + self.workers.count]
            self.matrices.begin(len(now))
            made += self.workers.map(function, now, self.matrices.abort)
        return made

    def _rounds(
        self,
        function: Callable[[Sequence[Items]], torch.Tensor],
        parts: Sequence[Sequence[Items]],
    ) -> Iterator[list[torch.Tensor]]:
        """Vectors of all parts in order, as many at a time as are computed at once."""
        size, rank = self.world.size, self.world.rank
        at_once = self.workers.count * size
        for at in range(0, len(parts), at_once):
            now = parts[at : at + at_once]
            own = self._local(function, now[rank::size])
            yield self.world.gather(own, len(now))
