"""Adapter files as numpy arrays, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.engine import F32
from specs.attach import check_attach
from specs.errors import IntegrityError
from specs.file_names import ADAPTER_FILE
from specs.safetensors_header import read_header
from specs.stored import read_manifest

if TYPE_CHECKING:
    from specs.stored import Card


def read_adapter(pack_dir: Path, card: Card) -> tuple[dict[str, F32], float]:
    """The tensors of a pack's adapter as float32, and its scale, after the attach proof.

    Raises:
        IntegrityError: another base, a wrong name, shape or dtype, NaN or infinity.
    """
    file = pack_dir / ADAPTER_FILE
    manifest, _ = read_manifest(pack_dir)
    header = read_header(file)
    check_attach(manifest, header, card, str(file))
    with file.open("rb") as stream:
        stream.seek(header.data_start)
        data = stream.read()
    tensors = {}
    for name, info in header.tensors.items():
        raw = data[info.start : info.end]
        if info.dtype == "BF16":
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            kind = {"F16": "<f2", "F32": "<f4"}[info.dtype]
            values = np.frombuffer(raw, kind).astype(np.float32)
        if not np.isfinite(values).all():
            raise IntegrityError(f"{file}: tensor `{name}` holds NaN or infinity")
        tensors[name] = values.reshape(info.shape)
    return tensors, manifest.adapter.scale
