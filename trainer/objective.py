"""What a run makes smaller: the loss of answers, or of preferring the better of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F

from trainer.batches import Item, Row

Compared = TypeVar("Compared", bound=Item, contravariant=True)


class Objective(Protocol[Compared]):
    """A sum over items, and what to divide it by."""

    def total(
        self, items: Sequence[Compared], losses: torch.Tensor, counts: Sequence[int]
    ) -> torch.Tensor:
        """The sum over `items`, given the losses of their rows' counted tokens, in order.

        Args:
            counts: counted tokens of each row.
        """

    def weight(self, items: Sequence[Compared]) -> float:
        """What the sum over `items` is divided by."""


class Answers:
    """Mean negative log-likelihood of answer tokens."""

    def total(
        self, items: Sequence[Row], losses: torch.Tensor, counts: Sequence[int]
    ) -> torch.Tensor:
        return losses.sum()

    def weight(self, items: Sequence[Row]) -> float:
        return float(sum(row.counted for row in items))


@dataclass(frozen=True)
class Pair:
    """The same prompt with a better and a worse answer, and what the base alone thinks of them."""

    chosen: Row
    rejected: Row
    reference: float = 0.0
    """How many nats more likely the base holds the chosen one."""

    @property
    def rows(self) -> tuple[Row, ...]:
        return (self.chosen, self.rejected)

    @property
    def size(self) -> int:
        return self.chosen.size + self.rejected.size

    @property
    def work(self) -> int:
        return self.chosen.work + self.rejected.work


class Preference:
    """Direct preference optimisation (Rafailov et al., arXiv 2305.18290, equation 7)."""

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def total(
        self, items: Sequence[Pair], losses: torch.Tensor, counts: Sequence[int]
    ) -> torch.Tensor:
        margins = self.margins(items, losses, counts)
        return -F.logsigmoid(margins).sum()

    def margins(
        self, items: Sequence[Pair], losses: torch.Tensor, counts: Sequence[int]
    ) -> torch.Tensor:
        """beta times how much more than the base the adapter prefers each chosen answer."""
        sums = torch.stack([part.sum() for part in torch.split(losses, list(counts))]).view(-1, 2)
        reference = torch.tensor([pair.reference for pair in items], device=losses.device)
        return self.beta * (sums[:, 1] - sums[:, 0] - reference)

    def weight(self, items: Sequence[Pair]) -> float:
        return float(len(items))
