"""The native extension's passes are PyTorch's, in every type and instruction set there is here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from runtime.codes import Codes
from runtime.quant import DequantLinear
from specs.errors import UsageError
from trainer.passes import NativePasses, TorchPasses, passes_on

native = pytest.importorskip("runtime.native._native", reason="the extension was not built")
CPU = torch.device("cpu")
TYPES = [torch.bfloat16, torch.float32]
Both = tuple[TorchPasses, TorchPasses]


@pytest.fixture(params=native.instruction_sets())
def both(request: pytest.FixtureRequest) -> Both:
    return TorchPasses(), NativePasses(native.Training(request.param))


@pytest.fixture(params=TYPES, ids=["bfloat16", "float32"])
def low(request: pytest.FixtureRequest) -> torch.dtype:
    torch.manual_seed(3)
    return request.param  # type: ignore[no-any-return]


def close(found: Any, expected: Any, low: torch.dtype) -> None:
    if low == torch.float32:
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-5)
    else:  # PyTorch rounds in the middle too
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)


def strided(rows: int, columns: int, low: torch.dtype) -> torch.Tensor:
    """Rows that other numbers stand between, as beside an adapter's."""
    return torch.randn(rows, columns + 3).to(low)[:, :columns]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("exact", [True, False])
def test_matrices(both: Both, low: torch.dtype, bits: int, exact: bool) -> None:
    rng = np.random.default_rng(1)
    rows, columns = 5, 32 * 19
    scale = rng.normal(size=(rows, columns // 32)).astype(np.float32)
    if exact:
        scale = scale.astype(np.float16).astype(np.float32)
    kind, below, above = (np.uint8, 0, 16) if bits == 4 else (np.int8, -128, 128)
    codes = rng.integers(below, above, (rows, columns)).astype(kind)
    offset = -scale * np.float32(7) if bits == 4 else None
    made = Codes(bits, codes, scale, offset)
    outs = [strided(rows, columns, low) for _ in both]
    for passes, out in zip(both, outs, strict=True):
        passes.dequantise(DequantLinear(made, CPU, low), out)
    expected = torch.from_numpy(made.weight())
    error = [(out.float() - expected).abs().max() for out in outs]
    assert error[1] <= error[0] + 1e-5
    close(outs[1].float(), expected, low)


@pytest.mark.parametrize("width", [64, 70])
@pytest.mark.parametrize("more", [True, False])
def test_norms(both: Both, low: torch.dtype, width: int, more: bool) -> None:
    x, weight = torch.randn(7, width), torch.randn(width)
    added = torch.randn(7, width).to(low) if more else None
    grad, dh = torch.randn(7, width), strided(7, width, low)
    results = []
    for passes in both:
        h, kept, again, lower = (strided(7, width, low), *torch.zeros(3, 7, width).to(low))
        y, inverse = passes.norm(x, added, weight, 1e-5, h, kept)
        passes.normed(kept, inverse, weight, again)
        d = passes.norm_backward(dh, kept, inverse, weight, grad, lower)
        results.append([y, inverse, h, kept, again, d, lower])
    for found, expected in zip(*reversed(results), strict=True):
        close(found, expected, low)


@pytest.mark.parametrize("size", [16, 64, 80])
def test_rotation_turns_and_turns_back(both: Both, low: torch.dtype, size: int) -> None:
    angles, bias = torch.randn(5, size // 2), torch.randn(6 * size)
    x = torch.randn(5, 6 * size).to(low)
    found = [x.clone(), x.clone()]
    for passes, t in zip(both, found, strict=True):
        passes.rotate(t, bias, angles.cos(), angles.sin(), 4, 1.0)
    close(found[1], found[0], low)
    both[1].rotate(found[1], None, angles.cos(), angles.sin(), 4, -1.0)
    close(found[1], (x + bias).to(low), low)


@pytest.mark.parametrize("width", [64, 75])
def test_swiglu(both: Both, low: torch.dtype, width: int) -> None:
    gate_up, grad = 4 * torch.randn(5, 2 * width).to(low), strided(5, width, low)
    results = []
    for passes in both:
        out = strided(5, width, low)
        passes.swiglu(gate_up, out)
        results.append([out, *passes.swiglu_backward(grad, gate_up)])
    for found, expected in zip(*reversed(results), strict=True):
        close(found, expected, low)


@pytest.mark.parametrize("keys", [1, 16, 37, 64])
@pytest.mark.parametrize("sequences", [1, 2])
def test_softmax(both: Both, low: torch.dtype, keys: int, sequences: int) -> None:
    queries = min(keys, 9)
    seen = torch.ones(sequences, 1, keys, keys, dtype=torch.bool).tril()[:, :, -queries:]
    if keys > 20:
        seen[0, :, :, 3:7] = False
    mask = torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf).to(low)
    scores = 5 * torch.randn(2, 3, queries, keys).to(low)
    grad = torch.randn(2, 3, queries, keys).to(low)
    p = [passes.softmax(scores.clone(), mask, 0.3) for passes in both]
    close(p[1], p[0], low)
    d = [passes.softmax_backward(grad.clone(), p[0], 0.3) for passes in both]
    close(d[1], d[0], low)


@pytest.mark.parametrize("vocabulary", [5, 512, 1001])
def test_cross_entropy(both: Both, low: torch.dtype, vocabulary: int) -> None:
    logits = 6 * torch.randn(19, vocabulary).to(low)
    targets = torch.randint(0, vocabulary, (19,))
    expected = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    found = [logits.clone(), logits.clone()]
    for passes, slopes in zip(both, found, strict=True):
        torch.testing.assert_close(passes.cross_entropy(slopes, targets, False), expected)
        assert torch.equal(slopes, logits)
        torch.testing.assert_close(passes.cross_entropy(slopes, targets, True), expected)
    close(found[1], found[0], low)


def test_what_is_no_number_stays_none(both: Both, low: torch.dtype) -> None:
    logits, targets = torch.randn(3, 100).to(low), torch.tensor([1, 2, 3])
    logits[1, 50], logits[2, 3] = torch.nan, torch.inf
    scores = logits.clone().view(1, 1, 3, 100)
    for passes in both:
        losses = passes.cross_entropy(logits.clone(), targets, True)
        assert losses.isfinite().tolist() == [True, False, False]
        made = passes.softmax(scores.clone(), torch.zeros(1, 1, 3, 100).to(low), 1.0)
        assert made.isfinite().all(dim=-1).flatten().tolist() == [True, False, False]


def test_tensors_that_do_not_fit_are_refused() -> None:
    passes = native.Training("")
    x = torch.zeros(4, 64)
    for wrong in (torch.zeros(4, 63), torch.zeros(5, 64), torch.zeros(4, 128)[:, ::2], x.double()):
        with pytest.raises((ValueError, TypeError)):
            passes.swiglu(torch.zeros(4, 128), wrong)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        passes.cross_entropy(x, torch.tensor([0, 1, 2, 64]), torch.zeros(4), False)
    with pytest.raises(ValueError, match="columns"):
        passes.dequantise(
            torch.zeros(4, 1, 32, dtype=torch.int8), torch.zeros(4, 1), None, torch.zeros(4, 33)
        )
    with pytest.raises(ValueError, match="overlap"):
        passes.swiglu(torch.zeros(4, 128), torch.zeros(256).as_strided((4, 64), (32, 1)))


def test_codes_and_scales_are_dense() -> None:
    passes, out = native.Training(""), torch.zeros(4, 64)
    codes, scale = torch.zeros(4, 2, 32, dtype=torch.int8), torch.ones(4, 2, 1)
    passes.dequantise(codes, scale, None, out)
    nibbles = torch.zeros(4, 2, 16, dtype=torch.uint8)
    for wrong in (
        (codes.transpose(0, 1), scale, None),
        (codes[:1].expand(4, 2, 32), scale, None),
        (codes, torch.ones(2, 4, 1).transpose(0, 1), None),
        (codes, torch.ones(1).expand(4, 2, 1), None),
        (nibbles, scale, torch.ones(1).expand(4, 2, 1)),
    ):
        with pytest.raises(ValueError, match="not dense"):
            passes.dequantise(*wrong, out)


def test_the_instruction_set_is_that_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = passes_on.__wrapped__
    monkeypatch.setenv("MBPM_ISA", "portable")
    assert isinstance(fresh("cpu"), NativePasses)
    monkeypatch.setenv("MBPM_ISA", "sse9")
    with pytest.raises(UsageError, match="cannot run `sse9`"):
        fresh("cpu")
    monkeypatch.setattr("runtime.native._native.INTERFACE", 0)
    assert type(fresh("cpu")) is TorchPasses
