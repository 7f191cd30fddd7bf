"""Rounding to 4 bits, on real weights: what products lose, not what entries lose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.codes import GROUP, Codes
from runtime.engine import F32
from runtime.gguf_file import open_gguf
from runtime.rounding import Covariance, Levels, fit_levels, round_matrix
from specs.base_card import WEIGHTS_FILE

UNIFORM = Levels.of(np.arange(-8, 8) * 15)


@pytest.fixture(scope="module")
def weight(smollm2: Path) -> F32:
    tensor = open_gguf(smollm2 / WEIGHTS_FILE).tensor("blk.7.ffn_down.weight")
    return tensor.rows(0, 48).dequantized()


@pytest.fixture(scope="module")
def moments() -> F32:
    """Second moments of inputs of which a few directions are large, as those of real layers are."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 60)) @ rng.standard_normal((60, 1536))
    x += rng.standard_normal((4000, 1536))
    return (x.T @ x / len(x)).astype(np.float32)


def loss(weight: F32, rounded: F32, moments: F32) -> float:
    """Expected square error of the outputs, relative to their mean square."""
    error = weight - rounded
    return float(np.sum((error @ moments) * error) / np.sum((weight @ moments) * weight))


def rounded(weight: F32, inputs: Covariance, levels: Levels) -> F32:
    codes, scales = round_matrix(weight, inputs, levels)
    assert (scales == scales.astype(np.float16)).all()
    assert codes.max() < len(levels.values)
    return Codes(4, codes, scales, None, levels.book).weight()


def test_the_factors_multiply_to_the_moments(moments: F32) -> None:
    inputs = Covariance.of(moments)
    assert (np.tril(inputs.upper, -1) == 0).all()
    assert (np.diag(inputs.upper) == 1).all()
    product = inputs.upper * inputs.diagonal @ inputs.upper.T
    np.testing.assert_allclose(product, moments, atol=2e-4 * np.abs(moments).max())


def test_later_columns_make_up_for_earlier_ones(weight: F32, moments: F32) -> None:
    blind = Covariance.of(np.eye(len(moments), dtype=np.float32))
    seen = Covariance.of(moments)
    nearest = loss(weight, rounded(weight, blind, UNIFORM), moments)
    assert loss(weight, rounded(weight, seen, UNIFORM), moments) < 0.25 * nearest


def test_the_loss_is_what_the_factors_say(weight: F32, moments: F32) -> None:
    """The sum over columns of d_k times the square of what rounding that column cost."""
    inputs = Covariance.of(moments)
    error = weight - rounded(weight, inputs, UNIFORM)
    own = error @ inputs.upper  # column k: the error of k and what came before it, as k saw it
    expected = np.sum(own**2 * inputs.diagonal) / np.sum((weight @ moments) * weight)
    assert loss(weight, weight - error, moments) == pytest.approx(expected, rel=0.02)


def test_fitted_levels_fit_better_than_uniform_ones(weight: F32) -> None:
    normal = np.random.default_rng(1).standard_normal((4000, GROUP)).astype(np.float32)
    fitted = fit_levels(normal, UNIFORM.values)
    assert len(set(fitted.values)) == 16
    assert np.abs(fitted.values).max() == 127

    def error(levels: Levels) -> float:
        blind = Covariance.of(np.eye(GROUP, dtype=np.float32))
        return float(np.mean((normal - rounded(normal, blind, levels)) ** 2))

    assert error(fitted) < 0.9 * error(UNIFORM)


def test_a_group_of_zeros_stays_zero() -> None:
    weight = np.zeros((3, 64), np.float32)
    weight[1, 40] = 2.0
    found = rounded(weight, Covariance.of(np.eye(64, dtype=np.float32)), UNIFORM)
    np.testing.assert_allclose(found, weight, atol=1e-3)
