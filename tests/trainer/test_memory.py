"""The plan keeps within the memory it is given, by its own estimates and as Linux counts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine import ModelConfig
from specs.errors import DoesNotFitError
from tests.support import tiny_base
from trainer.memory import Plan, Sizes, plan

SMALL = ModelConfig("llama", 30, 576, 1536, 9, 3, 64, 49152, 2048, 1e5, 1e-5, False)
SIZES = Sizes(
    model=SMALL,
    item=2,
    ranks=56,
    parameters=2_440_000,
    step_tokens=2048,
    step_prompts=2048,
    row_tokens=512,
    item_tokens=512,
    prompt_tokens=200_000,
    resident=420_000_000,
    workers=2,
)
GB = 1_000_000_000


def made(budget: float, sizes: Sizes = SIZES, epochs: int = 3, disk: int = 0) -> Plan:
    return plan(sizes, int(budget), disk, epochs)


def test_less_memory_first_forgets_prompts_then_cuts_steps_then_runs_layers_twice() -> None:
    plenty = made(20 * GB)
    assert (plenty.parts, plenty.recompute, plenty.kept) == (2, False, 200_000)
    budgets = [20 * GB - i * 50_000_000 for i in range(400)]
    plans = []
    for budget in budgets:
        try:
            plans.append(made(budget))
        except DoesNotFitError:
            break
    ways = [(p.recompute, p.parts) for p in plans]
    assert ways == sorted(ways)
    assert {recompute for recompute, _ in ways} == {False, True}
    assert len(set(ways)) > 3


def test_what_memory_has_no_room_for_goes_to_the_disk_and_the_rest_is_read_again() -> None:
    tight = made(1.8 * GB, disk=GB)
    assert 0 <= tight.kept < 200_000
    assert 0 < tight.spilled <= 200_000 - tight.kept
    assert made(20 * GB, epochs=1).kept == 0, "what is read once is not kept"


@given(
    budget=st.integers(1, 8 * GB),
    workers=st.integers(1, 4),
    rows=st.integers(16, 4096),
    item=st.sampled_from([2, 4]),
)
def test_a_plan_fits_or_says_what_would(budget: int, workers: int, rows: int, item: int) -> None:
    sizes = replace(
        SIZES,
        workers=workers,
        row_tokens=rows,
        item_tokens=rows,
        item=item,
        step_tokens=max(2048, rows),
    )
    try:
        assert made(budget, sizes).peak <= budget
    except DoesNotFitError as error:
        assert error.hint is not None
        wanted = int(error.hint.split("`--memory ")[1].split("MB")[0]) * 1_000_000
        assert wanted > budget
        assert made(wanted, sizes).peak <= wanted


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Trains a base that is large enough for its steps to be most of what is held."""
    folder = tmp_path_factory.mktemp("memory")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("HIDDEN", 256), ("FFN", 1024), ("LAYERS", 10)):
            patch.setattr(tiny_base, name, value)
        tiny_base.write_tiny_base(folder / "base")
    words = " ".join(f"word{i % 97}" for i in range(70))
    rows = [{"prompt": f"{i}", "response": f"{words} {i}"} for i in range(24)]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        sys.executable, "-m", "tests.support.train_script", str(folder / "base"), str(data),
    ]  # fmt: skip


def run(command: list[str], output: Path, memory: int) -> subprocess.CompletedProcess[str]:
    fields = ["epochs=1", 'activation="full"', "batch_tokens=4096", "cores=2", f"memory={memory}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(output), *fields], env=environment, capture_output=True, text=True
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_linux_counts_no_more_than_the_least_that_is_allowed(
    command: list[str], tmp_path: Path
) -> None:
    refused = run(command, tmp_path / "refused", 100_000_000)
    least = re.search(r"`--memory (\d+)MB` would fit", refused.stderr)
    assert least is not None, refused.stderr
    allowed = int(least[1]) * 1_000_000
    peaks = []
    for memory in (allowed, 20 * GB):
        done = run(command, tmp_path / str(memory), memory)
        assert done.returncode == 0, done.stderr
        peaks.append(json.loads(done.stdout.splitlines()[-1])["peak"])
    assert peaks[0] <= allowed
    assert peaks[1] > peaks[0] + 50_000_000, "the limit changed nothing"
