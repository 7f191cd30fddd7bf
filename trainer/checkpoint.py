"""Checkpoints: one safetensors file, written whole and renamed, that resumes to the same result."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from specs.errors import UsageError
from specs.model import load_json
from specs.safetensors_header import read_header
from trainer.lora import TrainableAdapter

LAST = "last.safetensors"
BEST = "best.safetensors"


@dataclass
class Progress:
    """Where a run stands."""

    run: str
    """Digest of everything that decides the result: config, base, rows."""
    step: int = 0
    best_loss: float | None = None
    """Held-out loss of the best epoch so far, nats per token."""


def save(file: Path, tensors: dict[str, torch.Tensor], progress: Progress) -> None:
    """Write atomically: a kill leaves the previous checkpoint."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata={"progress": json.dumps(asdict(progress))})
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def load(file: Path, run: str) -> tuple[dict[str, torch.Tensor], Progress] | None:
    """Read a checkpoint of this run; None where there is none.

    Raises:
        UsageError: it belongs to a run with other data, base or settings.
        IntegrityError: it is damaged.
    """
    if not file.exists():
        return None
    header = read_header(file)
    state = load_json(header.metadata.get("progress", "{}").encode(), str(file))
    progress = Progress(**state) if isinstance(state, dict) and "run" in state else None
    if progress is None or progress.run != run:
        raise UsageError(
            f"{file.parent} holds checkpoints of a run with other data, base or settings",
            hint="`--restart` drops them and begins anew; `--output` trains into another folder",
        )
    return load_file(file), progress


def optimizer_tensors(
    adapter: TrainableAdapter, optimizer: torch.optim.AdamW
) -> dict[str, torch.Tensor]:
    """The adapter's values and AdamW's two moments, by name."""
    tensors = adapter.snapshot()
    for name, parameter in adapter.tensors.items():
        state = optimizer.state[parameter]
        tensors[f"first.{name}"] = state["exp_avg"].cpu()
        tensors[f"second.{name}"] = state["exp_avg_sq"].cpu()
    return tensors


def restore_optimizer(
    adapter: TrainableAdapter,
    optimizer: torch.optim.AdamW,
    tensors: dict[str, torch.Tensor],
    step: int,
) -> None:
    """Undo `optimizer_tensors`."""
    adapter.load(tensors)
    for name, parameter in adapter.tensors.items():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"first.{name}"].to(parameter.device),
            "exp_avg_sq": tensors[f"second.{name}"].to(parameter.device),
        }
