"""GGUF files made for tests: the metadata of a real one with some of it changed, no tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter

from runtime.gguf_file import open_gguf


def rewrite_metadata(source: Path, target: Path, changes: dict[str, Any]) -> None:
    """Copy the metadata of `source` to `target` with `changes`; None leaves a key out."""
    metadata = {**open_gguf(source).metadata, **changes}
    writer = GGUFWriter(target, "test")
    for key, value in metadata.items():
        if value is None or key.startswith("GGUF.") or key == "general.architecture":
            continue
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, np.ndarray):
            writer.add_array(key, value.tolist())
        else:
            writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
