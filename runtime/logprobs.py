"""Log-probabilities from logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runtime.engine import F32


def log_softmax(logits: F32) -> npt.NDArray[np.float64]:
    """Natural-log probabilities over the last axis, computed in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
