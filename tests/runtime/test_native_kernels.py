"""Every kernel of every instruction set this machine has against numpy, on odd shapes too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.codes import Codes
from runtime.engine import F32

native = pytest.importorskip("runtime.native._native", reason="the extension was not built")
from runtime.native.convert import Tiled, tile  # noqa: E402

SETS = native.instruction_sets()
FORMATS = ("q4", "q4s", "q4c", "q5", "q8")
BOOK = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def random_codes(kind: str, rows: int, columns: int, rng: np.random.Generator) -> Codes:
    scale = rng.uniform(0.5, 2, (rows, columns // 32)).astype(np.float16).astype(np.float32)
    if kind in ("q5", "q8"):
        low, high = (-16, 16) if kind == "q5" else (-128, 128)
        codes = rng.integers(low, high, (rows, columns)).astype(np.int8)
        codes[0, 0] = low
        return Codes(8, codes, scale, None)
    codes = rng.integers(0, 16, (rows, columns)).astype(np.uint8)
    if kind == "q4c":
        return Codes(4, codes, scale, None, BOOK)
    offset = scale * np.float32(-8)
    if kind == "q4":
        offset = rng.normal(0, 1, scale.shape).astype(np.float16).astype(np.float32)
    return Codes(4, codes, scale, offset)


def dequantised(codes: Codes) -> F32:
    values = codes.codes.astype(np.float32)
    if codes.codebook is not None:
        values = np.array(codes.codebook, np.float32)[codes.codes]
    result = values * np.repeat(codes.scale, 32, axis=1)
    if codes.offset is not None:
        result += np.repeat(codes.offset, 32, axis=1)
    return result


def packed(kind: str, codes: Codes) -> Tiled:
    made = tile("test", codes)
    assert made.entry["format"] == kind
    return made


@pytest.mark.parametrize("kind", FORMATS)
def test_tiles_give_back_the_codes(kind: str) -> None:
    codes = random_codes(kind, 37, 96, np.random.default_rng(1))
    made = packed(kind, codes)
    back = native.unpack(made.tiles, kind, 37, 96, made.entry["codebook"])
    np.testing.assert_array_equal(back, dequantised(codes))


def test_a_scale_beyond_float16_is_refused() -> None:
    from specs.errors import IntegrityError

    codes = Codes(8, np.ones((1, 32), np.int8), np.full((1, 1), 1e6, np.float32), None)
    with pytest.raises(IntegrityError, match="float16"):
        tile("big", codes)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 70), groups=st.integers(1, 5), tokens=st.integers(1, 21),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_linear(isa: str, kind: str, rows: int, groups: int, tokens: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = random_codes(kind, rows, groups * 32, rng)
    made = packed(kind, codes)
    x = rng.normal(0, 1, (tokens, groups * 32)).astype(np.float32)
    x[:, :32] *= rng.choice([0, 1, 100], (tokens, 1))
    found = native.linear(isa, made.tiles, kind, rows, groups * 32, made.entry["codebook"], x)
    weight = dequantised(codes).astype(np.float64)
    # activations are rounded to 16 bits per 32 values, and sums are in float32
    step = np.abs(x).reshape(tokens, groups, 32).max(axis=-1).repeat(32, axis=1) / 32512
    bound = (step / 2 + 2e-6 * np.abs(x)).astype(np.float64) @ np.abs(weight).T
    assert (np.abs(found - x.astype(np.float64) @ weight.T) <= bound + 1e-6).all()


@pytest.mark.parametrize("isa", SETS)
@settings(max_examples=15, deadline=None)
@given(
    rank=st.integers(1, 37), groups=st.integers(1, 4), out=st.integers(1, 50),
    tokens=st.integers(1, 9), seed=st.integers(0, 99),
)  # fmt: skip
def test_low_rank(isa: str, rank: int, groups: int, out: int, tokens: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (
        rng.normal(0, 1, s).astype(np.float16).astype(np.float32)
        for s in ((rank, groups * 32), (out, rank))
    )
    x = rng.normal(0, 1, (tokens, groups * 32)).astype(np.float32)
    gain = rng.normal(0, 1, rank).astype(np.float32)
    expected = ((x.astype(np.float64) @ a.T) * gain) @ b.T
    np.testing.assert_allclose(native.low_rank(isa, a, b, x, gain), expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("wide", [False, True])
@settings(max_examples=12, deadline=None)
@given(
    queries=st.integers(1, 16), tokens=st.integers(1, 150),
    d=st.sampled_from([16, 48, 64, 80, 128]), seed=st.integers(0, 99),
)  # fmt: skip
def test_attention(isa: str, wide: bool, queries: int, tokens: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, keys, values = (
        rng.normal(0, s, (n, d)).astype(np.float32)
        for n, s in ((queries, d**-0.5), (tokens, 1.0), (tokens, 1.0))
    )
    limit = [int(n) for n in rng.integers(1, tokens + 1, queries)]
    found = native.attend(isa, q, keys, values, limit, wide)
    for i, n in enumerate(limit):
        scores = q[i].astype(np.float64) @ keys[:n].T
        weights = np.exp(scores - scores.max())
        expected = weights / weights.sum() @ values[:n]
        assert np.abs(found[i] - expected).max() < (0.02 if wide else 0.05)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("n", [1, 15, 16, 17, 64, 576])
def test_norm_and_activation(isa: str, n: int) -> None:
    rng = np.random.default_rng(n)
    x, w = (rng.normal(0, 3, (4, n)).astype(np.float32) for _ in range(2))
    x[0, 0], x[1, 0] = 120.0, -120.0
    mean = (x.astype(np.float64) ** 2).mean(axis=1, keepdims=True)
    norm = x / np.sqrt(mean + 1e-5) * w[0]
    np.testing.assert_allclose(native.pointwise(isa, "rms_norm", x, w, 1e-5), norm, rtol=1e-5)
    gated = x / (1 + np.exp(-x.astype(np.float64))) * w
    found = native.pointwise(isa, "swiglu", x, w, 0.0)
    np.testing.assert_allclose(found, gated, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("d", [16, 48, 64, 128])
def test_hadamard_keeps_products_and_spreads(isa: str, d: int) -> None:
    rng = np.random.default_rng(d)
    x = rng.normal(0, 1, (2, d)).astype(np.float32)
    turned = native.pointwise(isa, "hadamard", x, x, 0.0)
    assert turned[0] @ turned[1] == pytest.approx(x[0] @ x[1], abs=1e-4)
    size = d & -d
    one = np.zeros((1, d), np.float32)
    one[0, 3] = 1
    spread = native.pointwise(isa, "hadamard", one, one, 0.0)
    np.testing.assert_allclose(np.abs(spread[0, :size]), size**-0.5, rtol=1e-6)
