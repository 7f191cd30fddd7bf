"""The canonical form against the gguf library's own dequantisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import quantize

from runtime.codes import Codes, read_codes
from runtime.gguf_file import GGUFTensor
from runtime.quant import PACK_ROWS, DequantLinear, Int4PackLinear
from specs.errors import IntegrityError

CPU = torch.device("cpu")


def tensor(kind: str, rows: int, columns: int, seed: int = 0) -> GGUFTensor:
    """A tensor of one GGUF type: quantised where the library can, else random valid blocks."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 0.05, (rows, columns)).astype(np.float32)
    if kind in ("Q4_K", "Q6_K"):
        size = {"Q4_K": 144, "Q6_K": 210}[kind]
        blocks = rng.integers(0, 256, (rows, columns // 256, size), dtype=np.uint8)
        scales = rng.uniform(1e-4, 1e-2, (rows, columns // 256, 2)).astype(np.float16)
        if kind == "Q4_K":
            blocks[..., 0:4] = scales.view(np.uint8)
        else:
            blocks[..., 208:210] = scales[..., :1].copy().view(np.uint8)
        return GGUFTensor("t", kind, (rows, columns), blocks.reshape(rows, -1))
    data = weight if kind == "F32" else quantize(weight, Type[kind])
    return GGUFTensor("t", kind, (rows, columns), data)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    ("kind", "bound"),
    [
        ("Q4_0", 0.0), ("Q4_1", 0.0), ("Q5_0", 0.0), ("Q8_0", 0.0), ("Q4_K", 1e-7),
        ("Q6_K", 1e-2), ("F16", 1e-2), ("F32", 1e-2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rows", [16, 23])
def test_every_type_keeps_its_values(kind: str, bound: float, rows: int) -> None:
    source = tensor(kind, rows, 512)
    expected = torch.from_numpy(source.dequantized())
    codes = read_codes(source)
    assert codes.bits == (4 if kind.startswith("Q4") else 8)
    assert relative(torch.from_numpy(codes.weight()), expected) <= bound
    assert relative(DequantLinear(codes, CPU, torch.float32).weight(), expected) <= bound

    x = torch.randn(5, 512, generator=torch.Generator().manual_seed(1))
    packed = Int4PackLinear(codes)(x)
    assert packed.shape == (5, rows)
    assert relative(packed, x @ expected.T) < bound + 5e-3


def test_stacked_and_reordered_rows_keep_their_values() -> None:
    parts = [read_codes(tensor("Q4_1", n, 64, seed=n)) for n in (16, 32)]
    both = DequantLinear(Codes.concatenate(parts), CPU, torch.float32).weight()
    separate = [DequantLinear(p, CPU, torch.float32).weight() for p in parts]
    assert torch.equal(both, torch.cat(separate))
    order = np.random.default_rng(0).permutation(32)
    shuffled = DequantLinear(parts[1].rows(order), CPU, torch.float32).weight()
    assert torch.equal(shuffled, separate[1][torch.from_numpy(order)])


def test_gradient_reaches_the_input_and_equals_a_plain_matrix() -> None:
    linear = DequantLinear(read_codes(tensor("Q4_0", 48, 64)), CPU, torch.float32)
    x = torch.randn(7, 64, requires_grad=True)
    linear(x).square().sum().backward()
    mine = x.grad
    assert mine is not None
    x.grad = None
    (x @ linear.weight().T).square().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(mine, x.grad)


def test_a_gradient_too_small_for_float16_is_not_lost() -> None:
    codes = read_codes(tensor("Q4_0", 48, 64))
    gradients = []
    for dtype in (torch.float16, torch.float32):
        x = torch.ones(7, 64, requires_grad=True)
        slope = torch.randn(7, 48, generator=torch.Generator().manual_seed(0)) * 1e-8
        (DequantLinear(codes, CPU, dtype)(x) * slope).sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
    assert relative(*gradients) < 5e-3


def test_memory_is_near_the_files_own() -> None:
    source = tensor("Q4_1", 512, 512)
    codes = read_codes(source)
    for made in (Int4PackLinear(codes), DequantLinear(codes, CPU, torch.float32)):
        assert made.nbytes < 1.2 * source.data.nbytes


def test_scale_that_is_not_a_number_is_refused() -> None:
    source = tensor("Q8_0", 16, 64)
    damaged = source.data.copy()
    damaged[3, :2] = np.array([np.nan], dtype=np.float16).view(np.uint8)
    with pytest.raises(IntegrityError, match="NaN"):
        read_codes(GGUFTensor("t", "Q8_0", (16, 64), damaged))


def test_rows_of_a_length_no_group_divides_are_refused() -> None:
    with pytest.raises(IntegrityError, match="multiple of 32"):
        read_codes(GGUFTensor("t", "F32", (4, 40), np.zeros((4, 40), np.float32)))


@pytest.mark.parametrize("kind", ["Q4_1", "Q6_K"])
def test_a_matrix_read_in_strips_keeps_its_values(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tensor(kind, 23, 512)
    whole = read_codes(source)
    monkeypatch.setattr("runtime.codes.READ_ROWS", 5)
    strips = read_codes(source)
    np.testing.assert_array_equal(strips.codes, whole.codes)
    np.testing.assert_array_equal(strips.scale, whole.scale)


def test_rows_packed_in_strips_are_the_operators_own_form() -> None:
    """The strips stand one after another as PyTorch packs the whole matrix."""
    codes = read_codes(tensor("Q4_0", 3 * PACK_ROWS + 32, 128))
    whole = torch.from_numpy(codes.codes.astype(np.int32))
    expected = torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole, 1)
    assert torch.equal(Int4PackLinear(codes).packed, expected)
