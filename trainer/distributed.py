"""Several processes as `torchrun` starts them: each computes some parts of a step.

Gradients are gathered part by part and added in the parts' order on every process, so the sums are
those of one process that computed all parts, to the last bit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist


class World:
    """The processes of a run; one where `torchrun` started none."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self._ours = self.size > 1 and not dist.is_initialized()
        if self._ours:
            dist.init_process_group("gloo")

    @classmethod
    def alone(cls) -> World:
        """This process by itself, for what every process does."""
        made = cls.__new__(cls)
        made.size, made.rank, made._ours = 1, 0, False
        return made

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes and talks."""
        return self.rank == 0

    def finish(self) -> None:
        """Wait for the others, and leave them."""
        if self.size > 1:
            dist.barrier()
        if self._ours:
            dist.destroy_process_group()

    def any(self, flag: bool) -> bool:
        """Whether it is set on any process."""
        if self.size == 1:
            return flag
        noted = torch.tensor([int(flag)])
        dist.all_reduce(noted, dist.ReduceOp.MAX)
        return bool(noted)

    def gather(self, own: Sequence[torch.Tensor], count: int) -> list[torch.Tensor]:
        """Vectors of equal length of all processes, `count` in all: number i is process i % size's.

        Args:
            own: this process's, float32 or float64, in order; the last processes may have one less
                than the first.
        """
        if self.size == 1:
            return list(own)
        most = -(-count // self.size)
        own = [vector.cpu() for vector in own]  # gloo gathers from there
        like = own[0] if own else torch.zeros(0)
        # whoever has none learns from the others what theirs are
        told = torch.tensor([like.numel(), int(like.dtype == torch.float64)])
        dist.all_reduce(told, dist.ReduceOp.MAX)
        none = torch.zeros(int(told[0]), dtype=torch.float64 if told[1] else torch.float32)
        made: list[torch.Tensor] = []
        for k in range(most):
            mine = own[k] if k < len(own) else none
            places = [torch.empty_like(mine) for _ in range(self.size)]
            dist.all_gather(places, mine)
            made += places
        return made[:count]

    def share(self, data: bytes) -> bytes:
        """The main process's bytes, on every process."""
        if self.size == 1:
            return data
        length = torch.tensor([len(data)])
        dist.broadcast(length, 0)
        buffer = torch.zeros(int(length), dtype=torch.uint8)
        if self.main and data:
            buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(buffer, 0)
        return buffer.numpy().tobytes()
