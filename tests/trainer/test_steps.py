"""Steps are the same whoever computes them, and run on other devices than the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runtime.model import Model
from specs.base_card import CARD_FILE, WEIGHTS_FILE, BaseCard
from tests.support.tiny_base import write_tiny_base
from tests.trainer.test_forward import rows
from trainer.batches import parts
from trainer.distributed import World
from trainer.forward import token_losses
from trainer.frozen import Matrices, load_frozen
from trainer.lora import TrainableAdapter
from trainer.objective import Answers
from trainer.packing import pack
from trainer.prompts import Prompts
from trainer.steps import Steps
from trainer.workers import Workers

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    write_tiny_base(folder)
    return folder


def load(base: Path, device: torch.device) -> tuple[Model, TrainableAdapter]:
    model = load_frozen(base / WEIGHTS_FILE, device, torch.float32)
    card = BaseCard.parse((base / CARD_FILE).read_bytes(), CARD_FILE)
    return model, TrainableAdapter(card, 4, 2.0, 0, device)


def gradient(base: Path, workers: int, recompute: bool, device: torch.device) -> torch.Tensor:
    model, adapter = load(base, device)
    given = rows(23)
    prompts = Prompts(model, given, torch.float32)
    with Workers(workers) as threads:
        steps = Steps(model, adapter, prompts, threads, World.alone(), recompute=recompute)
        for _ in range(2):  # who is first changes
            loss = steps.gradients(Answers(), parts(given, 8), 100.0)
    assert loss > 0
    found = [flat.grad for flat in adapter.flat.values()]
    return torch.cat([g for g in found if g is not None]).cpu()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("workers", [2, 4])
def test_many_workers_compute_what_one_does(base: Path, workers: int, recompute: bool) -> None:
    expected = gradient(base, 1, False, CPU)
    assert expected.norm() > 0
    assert torch.equal(gradient(base, workers, recompute, CPU), expected)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_a_step_mixes_no_devices(
    base: Path, full: bool, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device without data, whatever stays on the CPU by mistake is refused."""
    device = torch.device("meta")
    model, adapter = load(base, device)
    width = model.config.hidden_size
    monkeypatch.setattr(  # rows of a file cannot be chosen by ids that are not there
        model, "embed", lambda tokens: torch.empty(*tokens.shape, width, device=device)
    )
    given = rows(9, full)
    matrices = Matrices(model, adapter, recompute=recompute)
    matrices.begin(1)
    packed = pack(given, device, torch.float32)
    before = Prompts(model, given, torch.float32).before(packed)
    losses = token_losses(matrices, packed, before, recompute=recompute)
    assert losses.device == device
    assert len(losses) == sum(len(r.tokens) - r.answer for r in given)
    for made, tensor in zip(
        torch.autograd.grad(losses.sum(), list(adapter.tensors.values())),
        adapter.tensors.values(),
        strict=True,
    ):
        assert (made.shape, made.device) == (tensor.shape, device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_computes_what_the_cpu_does(base: Path) -> None:
    expected = gradient(base, 1, False, CPU)
    found = gradient(base, 1, False, torch.device("cuda"))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
