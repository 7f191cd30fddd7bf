"""A whole base in 4 bits: every matrix, and outputs nearer to the original than blind rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.codes import Codes
from runtime.gguf_file import GGUFFile, model_config, open_gguf
from runtime.model import Model
from runtime.modules import row_order
from runtime.quant import FloatLinear, Linear
from runtime.requantise import FIRST_LEVELS, requantise
from runtime.rounding import Covariance, fit_levels, round_matrix
from specs.base_card import WEIGHTS_FILE
from tests.support.tiny_base import write_tiny_base

CPU = torch.device("cpu")


class Replaced(Model):
    """A model with other weights in the place of some of the file's."""

    codes: dict[str, Codes]

    def _linear(self, names: list[str]) -> list[Linear]:  # type: ignore[override]
        parts = []
        for name in names:
            codes, order = self.codes.get(name), row_order(self.config, name)
            weight = self._file.tensor(name).dequantized() if codes is None else codes.weight()
            parts.append(weight if order is None else weight[order])
        return [FloatLinear(torch.from_numpy(np.concatenate(parts)))]


def hidden(file: GGUFFile, codes: dict[str, Codes], tokens: torch.Tensor) -> torch.Tensor:
    model = type("Model", (Replaced,), {"codes": codes})(file, model_config(file), CPU, None)
    with torch.inference_mode():
        found, _ = model.forward(tokens)
    assert isinstance(found, torch.Tensor)
    return found


def blindly(file: GGUFFile, name: str) -> Codes:
    weight = file.tensor(name).dequantized()
    levels = fit_levels(weight.reshape(-1, 32), FIRST_LEVELS)
    even = Covariance.of(np.eye(weight.shape[1], dtype=np.float32))
    return Codes(4, *round_matrix(weight, even, levels), None, levels.book)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_whole_base(tmp_path: Path, architecture: str) -> None:
    write_tiny_base(tmp_path, architecture)
    file = open_gguf(tmp_path / WEIGHTS_FILE)
    text = torch.randint(10, 200, (41, 48), generator=torch.Generator().manual_seed(0))
    codes = requantise(file, text[:40].tolist())
    matrices = {t.name for t in file.tensors.values() if len(t.shape) == 2}
    assert set(codes) == matrices
    for name, found in codes.items():
        assert found.codes.shape == file.tensor(name).shape
        kept = name.endswith(("attn_k.weight", "attn_v.weight", "token_embd.weight"))
        assert (found.codebook is None) == kept

    exact = hidden(file, {}, text[40:])
    rounded = {name: c for name, c in codes.items() if c.codebook}
    ours = (hidden(file, rounded, text[40:]) - exact).norm() / exact.norm()
    blind = {name: blindly(file, name) for name in rounded}
    theirs = (hidden(file, blind, text[40:]) - exact).norm() / exact.norm()
    assert ours < 0.96 * theirs
