"""Checkpoints: one safetensors file, written whole and renamed, that resumes to the same result."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load

from specs.errors import DoesNotFitError, UsageError, disk_full
from specs.model import load_json
from specs.safetensors_header import read_header
from trainer.lora import TrainableAdapter
from trainer.memory import Plan, megabytes

LAST = "last.safetensors"
BEST = "best.safetensors"


@dataclass
class Progress:
    """Where a run stands."""

    run: str
    """Digest of everything that decides the result: config, base, rows."""
    step: int = 0
    best_loss: float | None = None
    """Held-out loss of the best look so far."""
    best_step: int = 0
    stale: int = 0
    """Looks since the best one."""
    plan: dict[str, int] = field(default_factory=dict)
    """How steps are computed: a resumed run keeps it, since the last bits depend on it."""
    losses: list[float] = field(default_factory=list)
    """Loss of every step."""
    looks: list[tuple[int, float]] = field(default_factory=list)
    """Step and held-out loss of every look."""

    def adopt(self, plan: Plan) -> None:
        """Note how steps are computed."""
        self.plan = {k: int(v) for k, v in asdict(plan).items()}

    def adopted(self) -> Plan | None:
        """The plan of the run that is resumed."""
        if not self.plan:
            return None
        known = {k: self.plan[k] for k in ("parts", "kept", "spilled", "peak")}
        return Plan(recompute=bool(self.plan["recompute"]), **known)


def write(file: Path, tensors: dict[str, torch.Tensor], progress: Progress) -> None:
    """Write atomically: a kill leaves the previous checkpoint.

    Raises:
        DoesNotFitError: the disk is full.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    header = _header(tensors, {"progress": json.dumps(asdict(progress))})
    size = len(header) + sum(t.nbytes for t in tensors.values())
    try:
        with temporary.open("wb") as stream:
            stream.write(header)
            for tensor in tensors.values():  # one after another: a whole copy would count
                stream.write(tensor.contiguous().numpy().data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        if not disk_full(error):
            raise
        raise DoesNotFitError(
            f"no space for the checkpoint {file} ({megabytes(size)}) after step "
            f"{progress.step}; the one before is as it was",
            hint="free some space and give the same command again: it goes on from that checkpoint",
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _header(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """What a safetensors file of float32 tensors on the CPU begins with."""
    entries: dict[str, object] = {"__metadata__": metadata}
    at = 0
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.float32
        end = at + tensor.nbytes
        entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read(file: Path) -> bytes:
    """What a checkpoint holds; nothing where there is none.

    Raises:
        IntegrityError: it is damaged.
    """
    if not file.exists():
        return b""
    read_header(file)
    return file.read_bytes()


def parse(raw: bytes, run: str, where: Path) -> tuple[dict[str, torch.Tensor], Progress]:
    """Tensors and progress of what `read` gave.

    Raises:
        UsageError: it belongs to a run with other data, base or settings.
    """
    length = int.from_bytes(raw[:8], "little")
    header = load_json(raw[8 : 8 + length], str(where))
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    state = load_json(metadata.get("progress", "{}").encode(), str(where))
    if not isinstance(state, dict) or state.get("run") != run:
        raise UsageError(
            f"{where.parent} holds checkpoints of a run with other data, base or settings",
            hint="`--restart` drops them and begins anew; `--output` trains into another folder",
        )
    progress = Progress(**state)
    progress.looks = [(step, loss) for step, loss in progress.looks]
    return load(raw), progress


def optimizer_tensors(
    adapter: TrainableAdapter, optimizer: torch.optim.AdamW
) -> dict[str, torch.Tensor]:
    """The adapter's values and AdamW's two moments, by name."""
    tensors = adapter.values()
    for name, flat in adapter.flat.items():
        state = optimizer.state[flat]
        tensors[f"first{name}"] = state["exp_avg"].cpu()
        tensors[f"second{name}"] = state["exp_avg_sq"].cpu()
    return tensors


def restore_optimizer(
    adapter: TrainableAdapter,
    optimizer: torch.optim.AdamW,
    tensors: dict[str, torch.Tensor],
    step: int,
) -> None:
    """Undo `optimizer_tensors`."""
    adapter.load(tensors)
    for name, flat in adapter.flat.items():
        optimizer.state[flat] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"first{name}"].to(flat.device),
            "exp_avg_sq": tensors[f"second{name}"].to(flat.device),
        }
