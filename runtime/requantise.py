"""A base's matrices in 4 bits, rounded with the base's own activations on some text in view.

One pass over the text does it: every matrix is rounded when the pass first comes to it, from what
goes into it after everything before it was rounded (Frantar et al., "GPTQ", arXiv 2210.17323).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from runtime.codes import GROUP, Codes, read_codes
from runtime.engine import F32
from runtime.gguf_file import GGUFFile, GGUFTensor, model_config
from runtime.model import Model
from runtime.modules import row_order
from runtime.quant import FloatLinear, Linear
from runtime.rounding import Covariance, Levels, fit_levels, round_matrix
from runtime.tokenizer import Tokenizer
from specs.errors import MbpmError

KEPT = ("attn_k", "attn_v")
"""Tensors that keep the file's precision, as token embeddings do: a hundredth of the weights, and
the most sensitive."""
FIRST_LEVELS = 127 * (0.55 * np.linspace(-1, 0.94, 16) + 0.45 * np.linspace(-1, 0.94, 16) ** 3)
"""Where fitting begins: denser around zero, and one level more below it than above."""
SAMPLED_GROUPS = 8192
"""Groups of a matrix that its levels are fitted to."""
STRIP_ROWS = 8192
"""Rows rounded at a time, which bounds what a vocabulary takes."""
DAMPING = 0.01
"""Part of the inputs' mean square that is added to every one's, for what the text leaves out."""


PIECES, PIECE_TOKENS = 8, 256
"""How much text the inputs are measured on."""


def pieces_of(texts: Iterable[str], tokenizer: Tokenizer) -> list[list[int]]:
    """As much of some texts as rounding looks at.

    Raises:
        MbpmError: they are too short.
    """
    tokens: list[int] = []
    for text in texts:
        tokens += tokenizer.encode(text + "\n")
        if len(tokens) >= PIECES * PIECE_TOKENS:
            break
    else:
        raise MbpmError(f"the texts to round weights by have only {len(tokens):,} tokens")
    return [tokens[n * PIECE_TOKENS :][:PIECE_TOKENS] for n in range(PIECES)]


def requantise(file: GGUFFile, tokens: Sequence[Sequence[int]]) -> dict[str, Codes]:
    """Every matrix that a token reads: tensor name -> codes, rows in the file's order.

    Args:
        tokens: Pieces of text, all of the same length.
    """
    model = _Calibrated(file, model_config(file), torch.device("cpu"), None)
    with torch.inference_mode():
        hidden, _ = model.forward(torch.tensor(tokens, dtype=torch.long))
        model.round_head(hidden)
    return model.codes


class _Calibrated(Model):
    """A model that rounds each of its matrices when the first pass through it gets there."""

    codes: dict[str, Codes]

    def _linear(self, names: Sequence[str]) -> list[Linear]:
        self.codes = {}
        return [_Rounded(self, names)]

    def round_head(self, hidden: torch.Tensor) -> None:
        """Round the output's matrix, which the pass itself does not get to."""
        tensor = self._head_rows
        tied = tensor.name == self._embedding.name
        inputs = covariance(hidden)
        self.codes[tensor.name] = read_codes(tensor) if tied else four_bits(tensor, inputs)

    def rounded(self, name: str, inputs: Covariance) -> torch.Tensor:
        """Round a tensor and return its new weight, rows as the model wants them."""
        tensor, order = self._file.tensor(name), row_order(self.config, name)
        kept = name.split(".")[-2] in KEPT
        self.codes[name] = read_codes(tensor) if kept else four_bits(tensor, inputs)
        weight = self.codes[name].weight()
        return torch.from_numpy(weight if order is None else weight[order])


class _Rounded(FloatLinear):
    """The tensors of one fused projection, read when they are first used and never kept."""

    def __init__(self, model: _Calibrated, names: Sequence[str]) -> None:
        self.model, self.names = model, names

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        inputs = covariance(x)
        return F.linear(x, torch.cat([self.model.rounded(name, inputs) for name in self.names]))


def covariance(x: torch.Tensor) -> Covariance:
    """Of inputs [..., columns]."""
    flat = x.flatten(0, -2).numpy()
    # with a matrix and itself NumPy computes only one half of the product
    moments = flat.T @ flat / np.float32(len(flat))
    moments[np.diag_indices_from(moments)] += DAMPING * np.diag(moments).mean()
    return Covariance.of(moments)


def four_bits(tensor: GGUFTensor, inputs: Covariance) -> Codes:
    """A matrix in 4 bits, with levels of its own."""
    rows, columns = tensor.shape
    codes = np.empty((rows, columns), np.uint8)
    scales = np.empty((rows, columns // GROUP), np.float32)
    levels: Levels | None = None
    for start in range(0, rows, STRIP_ROWS):
        weight = tensor.rows(start, start + STRIP_ROWS).dequantized()
        levels = levels or fit_levels(_sample(weight), FIRST_LEVELS)
        strip = slice(start, start + STRIP_ROWS)
        codes[strip], scales[strip] = round_matrix(weight, inputs, levels)
    assert levels is not None
    return Codes(4, codes, scales, None, levels.book)


def _sample(weight: F32) -> F32:
    groups = weight.reshape(-1, GROUP)
    return groups[:: -(-len(groups) // SAMPLED_GROUPS)]
