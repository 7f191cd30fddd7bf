"""The trainer's forward pass is the runtime's: same losses, whatever the batch."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.engine import ActiveAdapter
from runtime.gguf_file import model_config, open_gguf
from runtime.model import Model
from runtime.quant import DequantLinear
from runtime.torch_engine import TorchEngine
from specs.base_card import WEIGHTS_FILE, BaseCard
from tests.support.adapters import write_pack
from tests.support.tiny_base import write_tiny_base
from trainer.batches import Row, batches, pad
from trainer.forward import token_losses
from trainer.lora import TrainableAdapter

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    write_tiny_base(folder)
    return folder


@pytest.fixture(scope="module")
def model(base: Path) -> Model:
    file = open_gguf(base / WEIGHTS_FILE)
    make = partial(DequantLinear, device=CPU, dtype=torch.float32)
    return Model(file, model_config(file), CPU, make)


@pytest.fixture(scope="module")
def adapter(base: Path) -> TrainableAdapter:
    card = BaseCard.parse((base / "card.json").read_bytes(), "card")
    made = TrainableAdapter(card, 4, 8.0, 0, CPU)
    generator = torch.Generator().manual_seed(7)
    for tensor in made.tensors.values():
        tensor.data += torch.randn(tensor.shape, generator=generator) * 0.2
        tensor.data = tensor.data.half().float()  # what an adapter file can hold
    return made


def rows(count: int, full: bool = False) -> list[Row]:
    rng = random.Random(1)
    made = []
    for i in range(count):
        prompt, answer = rng.randint(8, 30), rng.randint(1, 20)
        tokens = (*range(10, 15), *(rng.randrange(3, 250) for _ in range(prompt + answer)))
        start = 0 if full else len(tokens) - answer - 3
        made.append(Row(tokens, start, len(tokens) - answer, str(i)))
    return made


@pytest.mark.parametrize("full", [False, True])
def test_losses_do_not_depend_on_the_batch(
    model: Model, adapter: TrainableAdapter, full: bool
) -> None:
    examples = rows(7, full)
    with torch.no_grad():
        together = token_losses(model, adapter, pad(examples, CPU))
        alone = torch.cat([token_losses(model, adapter, pad([r], CPU)) for r in examples])
    assert len(together) == sum(len(r.tokens) - r.answer for r in examples)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("full", [False, True])
def test_losses_are_the_runtimes(
    base: Path, model: Model, adapter: TrainableAdapter, tmp_path: Path, full: bool
) -> None:
    engine = TorchEngine(base, device="cpu", precision="float32")
    tensors = {k: v.detach().half() for k, v in adapter.tensors.items()}
    activation = "full" if full else "answer"
    slot = engine.load_adapter(write_pack(tmp_path / "p", engine.card, tensors, 4, 8.0, activation))
    for row in rows(4, full):
        cache = engine.new_cache(len(row.tokens))
        if row.start:
            engine.forward(cache, row.tokens[: row.start], logits="none")
        logits = engine.forward(
            cache, row.tokens[row.start :], [ActiveAdapter(slot)], logits="all"
        ).logits
        assert logits is not None
        scores = torch.log_softmax(torch.from_numpy(logits), -1)[row.answer - row.start - 1 : -1]
        expected = -scores.gather(1, torch.tensor(row.tokens[row.answer :])[:, None])[:, 0]
        with torch.no_grad():
            found = token_losses(model, adapter, pad([row], CPU))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_gradients_equal_finite_differences(model: Model, adapter: TrainableAdapter) -> None:
    batch = pad(rows(3), CPU)
    token_losses(model, adapter, batch).sum().backward()
    rng = random.Random(0)
    for name in rng.sample(sorted(adapter.tensors), 6):
        parameter = adapter.tensors[name]
        assert parameter.grad is not None
        at = int(parameter.grad.abs().argmax())
        flat = parameter.data.reshape(-1)
        found, old = float(parameter.grad.reshape(-1)[at]), float(flat[at])
        losses = []
        for shift in (1e-2, -1e-2):
            flat[at] = old + shift
            with torch.no_grad():
                losses.append(float(token_losses(model, adapter, batch).double().sum()))
        flat[at] = old
        assert np.isclose(found, (losses[0] - losses[1]) / 2e-2, rtol=0.05, atol=1e-2), name
    for parameter in adapter.tensors.values():
        parameter.grad = None


def test_prompt_tokens_get_no_gradient_and_no_adapter_with_answer_activation(
    model: Model, adapter: TrainableAdapter
) -> None:
    """Changing nothing but the adapter leaves the prompt's own keys what they were."""
    row = rows(1)[0]
    seen: list[int] = []

    def spy(layer: int, group: str, x: torch.Tensor) -> torch.Tensor | None:
        seen.append(x.shape[1])
        return adapter(layer, group, x)

    with torch.no_grad():
        token_losses(model, spy, pad([row], CPU))
    assert set(seen) == {len(row.tokens) - row.start - 1}


def test_every_row_is_in_one_batch_and_batches_keep_their_size() -> None:
    examples = rows(300)
    made = list(batches(examples, 400, 3))
    assert sorted(r.group for b in made for r in b) == sorted(r.group for r in examples)
    for batch in made:
        width = max(r.start for r in batch) + max(len(r.tokens) - r.start for r in batch)
        assert len(batch) == 1 or width * len(batch) <= 400
    assert [[r.group for r in b] for b in made] == [
        [r.group for r in b] for b in batches(examples, 400, 3)
    ]
    assert [[r.group for r in b] for b in made] != [
        [r.group for r in b] for b in batches(examples, 400, 4)
    ]
