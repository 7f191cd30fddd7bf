"""The trainer's forward pass is the runtime's: same losses, however rows are packed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.engine import ActiveAdapter
from runtime.model import Model
from runtime.torch_engine import TorchEngine
from specs.base_card import WEIGHTS_FILE, BaseCard
from tests.support.adapters import write_pack
from tests.support.tiny_base import write_tiny_base
from trainer.attention import attend, attend_backward
from trainer.batches import Row, batches, parts
from trainer.forward import token_losses
from trainer.frozen import Matrices, load_frozen
from trainer.lora import TrainableAdapter
from trainer.packing import pack
from trainer.passes import TorchPasses, passes_on
from trainer.prompts import Prompts

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    write_tiny_base(folder)
    return folder


def load_model(base: Path, dtype: torch.dtype) -> Model:
    return load_frozen(base / WEIGHTS_FILE, CPU, dtype)


@pytest.fixture(scope="module")
def model(base: Path) -> Model:
    return load_model(base, torch.float32)


@pytest.fixture(scope="module")
def adapter(base: Path) -> TrainableAdapter:
    card = BaseCard.parse((base / "card.json").read_bytes(), "card")
    made = TrainableAdapter(card, 4, 2.0, 0, CPU)
    generator = torch.Generator().manual_seed(7)
    for tensor in made.tensors.values():
        tensor.data += torch.randn(tensor.shape, generator=generator) * 0.2
        tensor.data.copy_(tensor.data.half().float())  # what an adapter file can hold
    return made


def rows(count: int, full: bool = False, common: int = 5) -> list[Row]:
    rng = random.Random(1)
    made = []
    for i in range(count):
        prompt, answer = rng.randint(8, 30), rng.randint(1, 20)
        own = (rng.randrange(3, 250) for _ in range(prompt + answer))
        tokens = (*range(10, 10 + common), *own)
        start = 0 if full else len(tokens) - answer - 3
        made.append(Row(tokens, start, len(tokens) - answer, str(i)))
    return made


def losses(
    model: Model,
    adapter: TrainableAdapter,
    given: Sequence[Row],
    prompts: Prompts | None = None,
    recompute: bool = False,
) -> torch.Tensor:
    matrices = Matrices(model, adapter)
    matrices.begin(1)
    dtype = matrices.dtype
    packed = pack(given, CPU, dtype)
    before = (prompts or Prompts(model, given, dtype)).before(packed)
    return token_losses(matrices, packed, before, recompute=recompute)


@pytest.mark.parametrize("full", [False, True])
def test_packed_rows_have_the_losses_of_separate_rows(
    model: Model, adapter: TrainableAdapter, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.packing.FREE", 0)  # rows as small as these would be one block
    examples = rows(40, full)
    packed = pack(examples, CPU, torch.float32)
    assert 1 < len(packed.blocks) < 20
    assert len(packed.tokens) == sum(len(r.tokens) - r.start - 1 for r in examples)
    with torch.no_grad():
        together = losses(model, adapter, examples)
        alone = torch.cat([losses(model, adapter, [r]) for r in examples])
    assert len(together) == sum(len(r.tokens) - r.answer for r in examples)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("full", [False, True])
def test_a_row_sees_nothing_of_its_neighbours(
    model: Model, adapter: TrainableAdapter, full: bool
) -> None:
    examples = rows(12, full)
    other = examples[0]
    changed = Row(tuple(7 for _ in other.tokens), other.start, other.answer, other.group)
    with torch.no_grad():
        first = losses(model, adapter, examples)
        second = losses(model, adapter, [changed, *examples[1:]])
    counted = len(other.tokens) - other.answer
    assert not torch.allclose(first[:counted], second[:counted])
    torch.testing.assert_close(first[counted:], second[counted:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("full", [False, True])
def test_losses_are_the_runtimes(
    base: Path, model: Model, adapter: TrainableAdapter, tmp_path: Path, full: bool
) -> None:
    engine = TorchEngine(base, device="cpu", precision="float32")
    tensors = {k: v.detach().half() for k, v in adapter.tensors.items()}
    activation = "full" if full else "answer"
    slot = engine.load_adapter(write_pack(tmp_path / "p", engine.card, tensors, 4, 8.0, activation))
    examples = rows(4, full)
    expected = []
    for row in examples:
        cache = engine.new_cache(len(row.tokens))
        if row.start:
            engine.forward(cache, row.tokens[: row.start], logits="none")
        logits = engine.forward(
            cache, row.tokens[row.start :], [ActiveAdapter(slot)], logits="all"
        ).logits
        assert logits is not None
        scores = torch.log_softmax(torch.from_numpy(logits), -1)[row.answer - row.start - 1 : -1]
        expected.append(-scores.gather(1, torch.tensor(row.tokens[row.answer :])[:, None])[:, 0])
    with torch.no_grad():
        found = losses(model, adapter, examples)
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_gradients_equal_finite_differences(
    model: Model, adapter: TrainableAdapter, full: bool, recompute: bool
) -> None:
    examples = rows(5, full)
    names = sorted(adapter.tensors)
    total = losses(model, adapter, examples, recompute=recompute).sum()
    made = torch.autograd.grad(total, list(adapter.tensors.values()))
    found = dict(zip(adapter.tensors, made, strict=True))
    for name in random.Random(0).sample(names, 10):
        parameter, gradient = adapter.tensors[name].data.reshape(-1), found[name].reshape(-1)
        at = int(gradient.abs().argmax())
        old, values = float(parameter[at]), []
        for shift in (1e-2, -1e-2):
            parameter[at] = old + shift
            with torch.no_grad():
                values.append(float(losses(model, adapter, examples).double().sum()))
        parameter[at] = old
        slope = (values[0] - values[1]) / 2e-2
        assert np.isclose(float(gradient[at]), slope, rtol=0.05, atol=1e-2), name


def test_bfloat16_gradients_point_the_way_of_float32_ones(
    base: Path, model: Model, adapter: TrainableAdapter
) -> None:
    examples = rows(12, full=True)
    vectors = []
    for made in (model, load_model(base, torch.bfloat16)):
        total = losses(made, adapter, examples).mean()
        parts = torch.autograd.grad(total, list(adapter.tensors.values()))
        vectors.append(torch.cat([p.reshape(-1) for p in parts]))
    exact, rough = vectors
    assert torch.cosine_similarity(exact, rough, dim=0) > 0.97
    assert abs(float(rough.norm() / exact.norm()) - 1) < 0.2


@pytest.mark.parametrize("passes", [TorchPasses(), passes_on("cpu")], ids=["torch", "quickest"])
def test_attention_and_its_gradients_are_torchs(passes: TorchPasses) -> None:
    generator = torch.Generator().manual_seed(0)
    for length, before in ((5, 0), (7, 4), (600, 0), (300, 20)):
        q = torch.randn(3, 6, length, 16, generator=generator)
        k, v = torch.randn(2, 3, 2, before + length, 16, generator=generator).unbind()
        grad = torch.randn(q.shape, generator=generator)
        seen = torch.ones(length, before + length, dtype=torch.bool).tril(before)
        seen = seen.expand(3, 1, -1, -1).clone()
        seen[1, :, :, : before // 2] = False
        mask = torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf)
        leaves = [t.clone().requires_grad_() for t in (q, k, v)]
        expected = torch.nn.functional.scaled_dot_product_attention(
            *leaves, attn_mask=mask, enable_gqa=True
        )
        torch.testing.assert_close(attend(passes, q, k, v, mask), expected, atol=1e-5, rtol=1e-4)
        dq, dk, dv = torch.autograd.grad(expected, leaves, grad)
        found = attend_backward(passes, grad, q, k, v, mask)
        for one, other in zip(found, (dq, dk[:, :, before:], dv[:, :, before:]), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_kept_prompts_give_the_losses_of_prompts_read_again(
    model: Model, adapter: TrainableAdapter, tmp_path: Path
) -> None:
    examples = rows(20)
    fresh = losses(model, adapter, examples).detach()
    tokens = sum(r.start - 5 for r in examples)
    for kept, spilled in ((tokens, 0), (0, tokens), (tokens // 3, tokens // 3)):
        prompts = Prompts(
            model, examples, torch.float32, kept=kept, spilled=spilled, folder=tmp_path
        )
        prompts.fill(lambda read, numbers: [read(n) for n in numbers])
        for _ in range(2):
            with torch.no_grad():
                found = losses(model, adapter, examples, prompts)
            torch.testing.assert_close(found, fresh, atol=1e-5, rtol=1e-5)
    assert list(tmp_path.iterdir()) == []


def test_a_kept_prompt_is_not_read_again(model: Model, adapter: TrainableAdapter) -> None:
    examples = rows(6)
    prompts = Prompts(model, examples, torch.float32, kept=1000)
    prompts.fill(lambda read, numbers: [read(n) for n in numbers])
    before = losses(model, adapter, examples, prompts).detach()
    norms = [layer.attention_norm.clone() for layer in model.layers]
    try:
        for layer in model.layers:
            layer.attention_norm.zero_()
        packed = pack(examples, CPU, torch.float32)
        kept = prompts.before(packed)
    finally:
        for layer, norm in zip(model.layers, norms, strict=True):
            layer.attention_norm.copy_(norm)
    assert kept is not None
    assert all(k.abs().sum() > 0 for k in kept)
    torch.testing.assert_close(losses(model, adapter, examples, prompts).detach(), before)


def test_every_row_is_in_one_batch_and_batches_keep_their_size() -> None:
    examples = rows(300)
    made = batches(examples, 400, 3)
    assert sorted(r.group for b in made for r in b) == sorted(r.group for r in examples)
    for batch in made:
        assert len(batch) == 1 or sum(len(r.tokens) for r in batch) <= 400
    assert made == batches(examples, 400, 3)
    assert made != batches(examples, 400, 4)


def test_parts_are_balanced_and_hold_every_row() -> None:
    examples = rows(50, full=True)
    made = parts(examples, 4)
    assert sorted(r.group for p in made for r in p) == sorted(r.group for r in examples)
    loads = [sum(r.work for r in p) for p in made]
    assert max(loads) - min(loads) <= max(r.work for r in examples)
    assert [len(p) for p in parts(examples[:2], 4)] == [1, 1]
