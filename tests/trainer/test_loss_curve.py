"""The loss curve is that of transformers + peft on the same batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.curve import of_ours, of_peft
from tests.support.tiny_base import write_tiny_base
from tests.trainer.test_loop import rows
from trainer.batches import Row
from trainer.config import TrainingConfig


@pytest.mark.parametrize("changes", [{}, {"rslora": True, "lora_plus": 4.0}])
def test_in_float32_every_loss_is_pefts(tmp_path: Path, changes: dict[str, object]) -> None:
    card = write_tiny_base(tmp_path / "tiny")
    given = [Row(r.tokens, 0, r.answer, r.group) for r in rows(100, 0)]
    config = TrainingConfig(
        rank=4, alpha=8.0, activation="full", epochs=2, learning_rate=3e-3, batch_tokens=300,
        schedule="constant", warmup=0.0,
    ).model_copy(update=changes)  # fmt: skip
    expected = of_peft(tmp_path / "tiny", card, given, config, torch.float32)
    found = of_ours(tmp_path / "tiny", card, given, config, torch.float32)
    assert expected[-1] < 0.7 * expected[0]
    np.testing.assert_allclose(found, expected, rtol=2e-3)
