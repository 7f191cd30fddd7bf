"""llama.cpp's own 4-bit files of a base's weights, made with its own quantiser and kept."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bench.peers import llama_tool
from specs.errors import MbpmError

FOLDER_VARIABLE = "MBPM_BENCH_FILES"
FOUR_BIT = ("Q4_0", "IQ4_NL")
"""Its best 4-bit types for models whose rows are no multiple of 256."""


def folder() -> Path:
    """Where files made for benchmarks are kept."""
    return Path(os.environ.get(FOLDER_VARIABLE, ".cache/bench-files"))


def four_bit_files(weights: Path) -> dict[str, Path]:
    """Type -> file, every matrix of that type (`--pure`); nothing where the quantiser is missing.

    Raises:
        MbpmError: the quantiser failed.
    """
    quantise = llama_tool("llama-quantize")
    made = {}
    for kind in FOUR_BIT:
        file = folder() / f"{weights.parent.name[:12]}-{kind}.gguf"
        if not file.is_file():
            if quantise is None:
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            command = [str(quantise), "--allow-requantize", "--pure", str(weights), str(part), kind]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise MbpmError(f"llama-quantize failed: {done.stderr.strip()[-500:]}")
            part.replace(file)
        made[kind] = file
    return made
