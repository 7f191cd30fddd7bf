"""The loss curve is that of transformers + peft on the same batches."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.gguf_file import model_config, open_gguf
from runtime.model import Model
from runtime.quant import DequantLinear
from specs.base_card import WEIGHTS_FILE, BaseCard
from tests.support.tiny_base import write_tiny_base
from tests.trainer.test_loop import rows
from trainer.batches import Row, batches
from trainer.config import TrainingConfig
from trainer.loop import hash_seed, train
from trainer.lora import TrainableAdapter

CPU = torch.device("cpu")


def of_peft(base: Path, card: BaseCard, given: list[Row], config: TrainingConfig) -> list[float]:
    """The losses of a loop as anyone would write it, in float32."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(
        str(base), gguf_file=WEIGHTS_FILE, dtype=torch.float32
    )
    chosen = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        use_rslora=config.rslora,
    )
    model = get_peft_model(loaded, chosen)
    start = TrainableAdapter(card, config.rank, config.scale, config.seed, CPU).snapshot()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            ours = name.removeprefix("base_model.model.").replace(".default", "")
            parameter.data.copy_(start.pop(ours))
    assert start == {}
    groups = [
        [p for n, p in model.named_parameters() if half in n] for half in ("lora_A", "lora_B")
    ]
    optimizer = torch.optim.AdamW(
        [
            {"params": groups[0], "lr": config.learning_rate},
            {"params": groups[1], "lr": config.learning_rate * config.lora_plus},
        ],
        weight_decay=0.0,
    )
    losses = []
    for epoch in range(config.epochs):
        for batch in batches(given, config.batch_tokens, hash_seed(config.seed, epoch)):
            width = max(len(r.tokens) for r in batch)
            ids = torch.zeros(len(batch), width, dtype=torch.long)
            mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
            for i, row in enumerate(batch):
                length = len(row.tokens)
                ids[i, :length] = torch.tensor(row.tokens)
                mask[i, :length] = 1
                labels[i, row.answer : length] = ids[i, row.answer : length]
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([*groups[0], *groups[1]], config.max_gradient_norm)
            optimizer.step()
            losses.append(loss.item())
    return losses


def of_ours(
    base: Path,
    card: BaseCard,
    given: list[Row],
    config: TrainingConfig,
    folder: Path,
    dtype: torch.dtype,
) -> list[float]:
    file = open_gguf(base / WEIGHTS_FILE)
    model = Model(file, model_config(file), CPU, partial(DequantLinear, device=CPU, dtype=dtype))
    return list(train(model, card, given, given[:2], config, folder, lambda step: None).losses)


@pytest.mark.parametrize("changes", [{}, {"rslora": True, "lora_plus": 4.0}])
def test_in_float32_every_loss_is_pefts(tmp_path: Path, changes: dict[str, object]) -> None:
    card = write_tiny_base(tmp_path / "tiny")
    given = [Row(r.tokens, 0, r.answer, r.group) for r in rows(100, 0)]
    config = TrainingConfig(
        rank=4, alpha=8.0, activation="full", epochs=2, learning_rate=3e-3, batch_tokens=300,
        schedule="constant", warmup=0.0,
    ).model_copy(update=changes)  # fmt: skip
    expected = of_peft(tmp_path / "tiny", card, given, config)
    found = of_ours(tmp_path / "tiny", card, given, config, tmp_path / "c", torch.float32)
    assert expected[-1] < 0.7 * expected[0]
    np.testing.assert_allclose(found, expected, rtol=2e-3)
