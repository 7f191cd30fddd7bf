from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
MatrixAt = tuple[str, int, int, int, list[int]]

INTERFACE: int

class Base:
    threads: int
    isa: str
    spare_bytes: int
    def bandwidth(self) -> float: ...

class Cache:
    length: int
    capacity: int
    used_bytes: int
    def truncate(self, length: int) -> None: ...

class Slot:
    bytes: int

class Training:
    """The trainer's passes on PyTorch tensors (trainer.passes says what they are)."""

    def __init__(self, isa: str) -> None: ...
    def dequantise(self, codes: Any, scale: Any, offset: Any, out: Any) -> None: ...
    def norm(
        self, x: Any, more: Any, weight: Any, eps: float, y: Any, inverse: Any, h: Any, kept: Any
    ) -> None: ...
    def normed(self, kept: Any, inverse: Any, weight: Any, h: Any) -> None: ...
    def norm_backward(
        self, h: Any, kept: Any, inverse: Any, weight: Any, x: Any, y: Any, low: Any
    ) -> None: ...
    def rotate(
        self, x: Any, bias: Any, cos: Any, sin: Any, heads: int, d: int, turn: float
    ) -> None: ...
    def swiglu(self, gate_up: Any, out: Any) -> None: ...
    def swiglu_backward(self, grad: Any, gate_up: Any, d_gate_up: Any, active: Any) -> None: ...
    def softmax(self, scores: Any, mask: Any, scale: float) -> None: ...
    def softmax_backward(self, grad: Any, probabilities: Any, scale: float) -> None: ...
    def cross_entropy(self, logits: Any, targets: Any, losses: Any, slopes: bool) -> None: ...

def instruction_sets() -> list[str]: ...
def unsupported(config: Mapping[str, Any]) -> str: ...
def pack(format: str, codes: U8, scale: F32, offset: F32 | None) -> U8: ...
def unpack(tiles: U8, format: str, rows: int, columns: int, codebook: Sequence[int]) -> F32: ...
def linear(
    isa: str,
    tiles: U8,
    format: str,
    rows: int,
    columns: int,
    codebook: Sequence[int],
    x: F32,
) -> F32: ...
def low_rank(isa: str, a: F32, b: F32, x: F32, gain: F32) -> F32: ...
def attend(isa: str, q: F32, keys: F32, values: F32, limit: Sequence[int], wide: bool) -> F32: ...
def pointwise(isa: str, what: str, x: F32, w: F32, eps: float) -> F32: ...
def base(
    file: U8,
    config: Mapping[str, Any],
    layers: Sequence[tuple[list[MatrixAt], list[int]]],
    output_norm: int,
    embedding: MatrixAt,
    head: MatrixAt | None,
    isa: str,
    threads: int,
) -> Base: ...
def cache(base: Base, capacity: int) -> Cache: ...
def adapter(base: Base, pairs: Sequence[tuple[int, int, F32, F32, float]]) -> Slot: ...
def forward(
    base: Base,
    sequences: Sequence[Cache],
    tokens: Sequence[int],
    active: Sequence[tuple[Slot, float, int, int]],
    logits: F32 | None,
    hidden_layer: int,
    hidden: F32 | None,
) -> None: ...
