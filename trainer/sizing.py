"""What a run's memory depends on, read off its model, data and settings."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.model import Model
from runtime.quant import DequantLinear
from trainer.batches import Items, batches
from trainer.config import TrainingConfig
from trainer.lora import TrainableAdapter
from trainer.memory import Sizes, resident
from trainer.prompts import common_start


def sizes_of(
    model: Model,
    adapter: TrainableAdapter,
    items: Sequence[Items],
    held_out: Sequence[Items],
    config: TrainingConfig,
    *,
    workers: int,
    processes: int = 1,
) -> Sizes:
    """The sizes of a run whose first epoch is as its others."""
    everything = [*items, *held_out]
    rows = [row for item in everything for row in item.rows]
    common = common_start(rows)
    steps = batches(items, config.batch_tokens, config.seed)
    steps += batches(held_out, config.batch_tokens, None)
    assert isinstance(model.head, DequantLinear)
    return Sizes(
        model=model.config,
        item=model.head.dtype.itemsize,
        ranks=sum(t.shape[0] for t in adapter.of_layer(0)[::2]),
        parameters=sum(flat.numel() for flat in adapter.flat.values()),
        step_tokens=max(sum(item.work for item in batch) for batch in steps),
        step_prompts=max(sum(r.start for i in batch for r in i.rows) for batch in steps),
        item_tokens=max(item.work for item in everything),
        row_tokens=max(len(row.tokens) for row in rows),
        prompt_tokens=sum(max(0, len(p) - common) for p in {r.tokens[: r.start] for r in rows}),
        resident=resident(model.device),
        workers=workers,
        processes=processes,
    )
