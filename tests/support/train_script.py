"""Trains an adapter in a process of its own, for tests that kill it, count it or start several.

Usage: python -m tests.support.train_script BASE_FOLDER DATA OUTPUT [field=value ...]

Writes `OUTPUT/adapter.safetensors`; fields are those of `TrainingConfig`, `memory` (bytes) and
`cores`. Every step is a line.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from safetensors.torch import save_file

from specs.errors import MbpmError
from trainer.config import TrainingConfig
from trainer.data.reading import read_dataset
from trainer.data.split import split_by_group
from trainer.loop import StepReport
from trainer.training import Means, train_adapter


class Lines:
    """A listener that prints."""

    def stage(self, text: str) -> None:
        print(text, flush=True)

    def step(self, report: StepReport) -> None:
        print(f"step {report.step}/{report.steps} loss {report.loss}", flush=True)


def main(base: Path, data: Path, output: Path, fields: list[str]) -> None:
    """Train as the arguments say."""
    values = {k: json.loads(v) for k, v in (field.split("=", 1) for field in fields)}
    memory, cores = values.pop("memory", None), values.pop("cores", None)
    config = TrainingConfig.model_validate_json(json.dumps(values))
    split = split_by_group(read_dataset(data), fraction=0.25, seed=0)
    means = Means.of("cpu", memory=memory, cores=cores, tensorboard=None)
    result, _ = train_adapter(base, split.train, split.held_out, config, output, Lines(), means)
    save_file(result.tensors, output / "adapter.safetensors")
    held = {"plan": result.plan.__dict__, "held_out": result.held_out_loss, "peak": peak()}
    print(json.dumps(held))


def peak() -> int | None:
    """Most bytes this process ever held, as Linux counts them; unlike what `wait4` gives, without
    those of the process that started it."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    return None if found is None else int(found[1]) * 1024


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:4]), sys.argv[4:])  # type: ignore[misc, arg-type]
    except MbpmError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
