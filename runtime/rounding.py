"""Rounding a matrix to few bits so that its products, not its entries, stay what they were.

Columns are rounded one after another, and what is still to come makes up for what rounding has
cost so far: with inputs x of covariance H = U diag(d) U^T, U unit upper triangular, column k is
rounded to the nearest level of w_k + sum over j < k of (w_j - rounded_j) U_jk, which leaves the
expected square error of the outputs at sum of d_k (rounding error of column k)^2 (Frantar et al.,
"GPTQ", arXiv 2210.17323, in the form of Chee et al., "QuIP", arXiv 2307.13304, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from runtime.codes import GROUP
from runtime.engine import F32

REACH = (1.0, 0.93, 1.07)
"""Scales tried for a group: its largest entry at this times the lowest and the highest level."""
ITERATIONS = 8


@dataclass(frozen=True)
class Covariance:
    """Inputs' second moments H, factored as U diag(d) U^T."""

    upper: F32
    """float32 [columns, columns], unit upper triangular."""
    diagonal: F32
    """float32 [columns]."""

    @classmethod
    def of(cls, moments: F32) -> Covariance:
        """Factor a positive definite [columns, columns].

        Raises:
            torch.linalg.LinAlgError: it is not.
        """
        # a Cholesky factor of the matrix turned upside down is an upper factor of the matrix
        turned = torch.from_numpy(moments).flip(0, 1)
        factor = torch.linalg.cholesky(turned).flip(0, 1).numpy()
        root = np.diag(factor).copy()
        return cls(np.ascontiguousarray(factor / root), root * root)


@dataclass(frozen=True)
class Levels:
    """The whole numbers that codes stand for, ascending, times a scale per group of 32 columns."""

    values: F32
    """float32 [levels], each within -127..127."""
    nearest: npt.NDArray[np.uint8]
    """uint8 [256]: the code of the level nearest to -128..127."""

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Levels:
        """Levels in ascending order."""
        found = np.asarray(values, dtype=np.float32)
        whole = np.arange(-128, 128, dtype=np.float32)
        return cls(found, np.abs(whole[:, None] - found).argmin(axis=1).astype(np.uint8))

    @property
    def book(self) -> tuple[int, ...]:
        """The levels as a `Codes` has them."""
        return tuple(int(value) for value in self.values)

    def codes(self, x: F32) -> npt.NDArray[np.uint8]:
        """The code nearest to every number, in units of the scale."""
        found: npt.NDArray[np.uint8] = self.nearest.take(
            np.clip(x + np.float32(128.5), 0, 255).astype(np.intp)
        )
        return found

    def scales(self, groups: F32, weights: F32) -> F32:
        """The scale [n] of each group [n, 32] with the least weighted square error of those tried.

        Each candidate scale fixes the codes, and they the best scale for them.
        """
        at = np.abs(groups).argmax(axis=1)[:, None]
        largest = np.take_along_axis(groups, at, axis=1)[:, 0]
        best, gained = np.zeros(len(groups), np.float32), np.zeros(len(groups), np.float32)
        for end in (self.values[0], self.values[-1]):
            for reach in REACH:
                inverse = _inverse(largest) * np.float32(end * reach)
                levels = self.values.take(self.codes(groups * inverse[:, None]))
                weighted = levels * weights
                product = np.einsum("nk,nk->n", groups, weighted)
                scale = product * _inverse(np.einsum("nk,nk->n", levels, weighted))
                gain = product * scale
                better = gain > gained
                best, gained = np.where(better, scale, best), np.where(better, gain, gained)
        return best


def fit_levels(samples: F32, start: npt.ArrayLike) -> Levels:
    """Move levels to where the weights are: Lloyd's algorithm over groups [n, 32] and their scales.

    Lloyd, "Least squares quantization in PCM", 1982.
    """
    values = np.asarray(start, dtype=np.float32)
    even = np.ones(GROUP, np.float32)
    for _ in range(ITERATIONS):
        levels = Levels.of(values)
        scales = levels.scales(samples, even)
        codes = levels.codes(samples * _inverse(scales)[:, None])
        sums = np.bincount(codes.ravel(), (samples * scales[:, None]).ravel(), len(values))
        weights = np.bincount(codes.ravel(), np.repeat(scales**2, GROUP), len(values))
        values = np.where(weights > 0, sums / np.maximum(weights, 1e-30), values)
        values = (values * (127 / np.abs(values).max())).astype(np.float32)
    return Levels.of(np.rint(values))


def round_matrix(
    weight: F32, inputs: Covariance, levels: Levels
) -> tuple[npt.NDArray[np.uint8], F32]:
    """Codes uint8 [rows, columns] and scales [rows, columns / 32], float16 numbers, of a matrix."""
    rows, columns = weight.shape
    codes = np.empty((rows, columns), np.uint8)
    scales = np.empty((rows, columns // GROUP), np.float32)
    upper = inputs.upper
    wanted = np.ascontiguousarray(weight.T)  # [columns, rows]: a column is one piece of memory
    missed = np.zeros_like(wanted)
    for start in range(0, len(wanted), GROUP):
        group = slice(start, start + GROUP)
        moved = wanted[group] + upper[:start, group].T @ missed[:start]
        scale = levels.scales(np.ascontiguousarray(moved.T), inputs.diagonal[group])
        scale = scale.astype(np.float16).astype(np.float32)
        inverse = _inverse(scale)
        for k in range(GROUP):
            column = start + k
            goal = moved[k] + upper[start:column, column] @ missed[start:column]
            code = levels.codes(goal * inverse)
            codes[:, column] = code
            missed[column] = wanted[column] - scale * levels.values.take(code)
        scales[:, start // GROUP] = scale
    return codes, scales


def _inverse(x: F32) -> F32:
    return np.divide(1.0, x, out=np.zeros_like(x), where=x != 0)
