"""Our engines, as the benchmarks drive them: by name, through the `Engine` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.report import tell
from runtime.engine import F32, ActiveAdapter, Cache, Engine
from runtime.native import why_not
from specs.base_card import CARD_FILE, BaseCard

ENGINES = ("native", "torch")
PRECISIONS = ("packed", "int4")


def default_engine() -> str:
    """What `mbpm run` uses on a processor: the native engine where it was built."""
    return "torch" if why_not() else "native"


def open_engine(name: str, base_dir: Path, threads: int, precision: str = "packed") -> Engine:
    """Load a base.

    Args:
        precision: `packed` (the file's own), `int4` (native only) or `float32` (the reference;
            torch only).
    """
    if name == "native":
        from runtime.native.engine import NativeEngine

        return NativeEngine(base_dir, precision=precision, threads=threads, say=tell)
    import torch

    from runtime.torch_engine import TorchEngine

    torch.set_num_threads(threads)
    exact = precision == "float32"
    return TorchEngine(base_dir, device="cpu", precision="float32" if exact else "packed")


def bytes_per_token(engine: Engine, base_dir: Path, precision: str = "packed") -> int:
    """Bytes of weights that one token reads: all but the embeddings of other tokens."""
    if not engine.name.startswith("native"):
        return engine.memory()["weights"]
    from runtime.native.packed import matrix_bytes, open_packed

    card = BaseCard.parse((base_dir / CARD_FILE).read_bytes(), CARD_FILE)
    packed = open_packed(base_dir, card.fingerprint, precision, lambda text: None)
    matrices = dict(packed.matrices)
    if "output.weight" in matrices:
        del matrices["token_embd.weight"]
    return sum(matrix_bytes(kind, rows, columns) for kind, rows, columns, *_ in matrices.values())


def own_bandwidth(engine: Engine) -> float:
    """Bytes per second that the native engine reads with its own threads; 0 for another engine."""
    if not why_not():
        from runtime.native.engine import NativeEngine

        if isinstance(engine, NativeEngine):
            return 1e9 * engine.read_bandwidth()
    return 0.0


def decode_rows(
    engine: Engine,
    caches: Sequence[Cache],
    tokens: Sequence[int],
    adapters: Sequence[Sequence[ActiveAdapter]],
) -> F32:
    """One token of every row, each with its own adapters: float32 logits [rows, vocabulary].

    The torch engine has no batches and runs the rows one after another.
    """
    if not why_not():
        from runtime.native.engine import NativeEngine, Row

        if isinstance(engine, NativeEngine):
            return engine.decode([Row(*row) for row in zip(caches, tokens, adapters, strict=True)])
    rows = []
    for cache, token, active in zip(caches, tokens, adapters, strict=True):
        logits = engine.forward(cache, [token], active).logits
        assert logits is not None
        rows.append(logits[-1])
    return np.stack(rows)
