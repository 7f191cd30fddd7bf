"""What can happen to a run: killed, interrupted, a full disk, too little memory, two processes."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runtime.model import Model
from specs.base_card import BaseCard
from specs.errors import DoesNotFitError
from tests.support.tiny_base import write_tiny_base
from tests.trainer.test_loop import CONFIG, rows
from tests.trainer.test_loop import base as base  # a fixture
from trainer.loop import Resources, Result, StepReport, train
from trainer.prompts import Prompts
from trainer.steps import Steps

DATA = Path(__file__).parents[1] / "data" / "legal-mini.jsonl"
SCRIPT = [sys.executable, "-m", "tests.support.train_script"]
FIELDS = ["rank=4", "epochs=4", "learning_rate=0.01", "batch_tokens=1500", "max_length=400"]
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    write_tiny_base(folder)
    return folder


def run(
    base: tuple[Model, BaseCard],
    folder: Path,
    report: object = lambda step: None,
    resources: Resources | None = None,
) -> Result:
    return train(
        base[0], base[1], rows(150, 0), rows(40, 1), CONFIG, folder, report,  # type: ignore[arg-type]
        resources=resources,
    )  # fmt: skip


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@posix
def test_a_run_killed_in_the_middle_ends_with_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    command = [*SCRIPT, str(tiny), str(DATA)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole"), *FIELDS], check=True, env=environment)
    cut = [*command, str(tmp_path / "cut"), *FIELDS]
    with subprocess.Popen(cut, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if (tmp_path / "cut/checkpoints/last.safetensors").exists() and "step" in line:
                process.send_signal(signal.SIGKILL)
                break
    assert not (tmp_path / "cut/adapter.safetensors").exists()
    done = subprocess.run(cut, check=True, env=environment, capture_output=True, text=True)
    assert "step 1/" not in done.stdout
    files = [tmp_path / name / "adapter.safetensors" for name in ("whole", "cut")]
    assert same(load_file(files[0]), load_file(files[1]))
    assert (tmp_path / "cut/loss.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in (tmp_path / "cut/checkpoints").iterdir() if "tmp" in p.name] == []


@pytest.mark.skipif(sys.platform != "linux", reason="gloo over loopback")
def test_two_processes_compute_what_one_computes(tiny: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc-per-node", "2", "-m", "tests.support.train_script"]
    for name, start, fields in (
        ("one", SCRIPT, ["cores=2"]),
        ("two", launcher, ["cores=1"]),
    ):
        # some steps have fewer rows than there are processes
        fields += ["epochs=2", "batch_tokens=200"]
        command = [*start, str(tiny), str(DATA), str(tmp_path / name), *FIELDS, *fields]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / name / "adapter.safetensors") for name in ("one", "two"))
    assert same(one, two)


@posix
def test_an_interruption_writes_a_checkpoint_that_goes_on_to_the_same_bytes(
    base: tuple[Model, BaseCard], tmp_path: Path, interruptible: None
) -> None:
    whole = run(base, tmp_path / "whole")
    steps: list[int] = []

    def interrupt(step: StepReport) -> None:
        steps.append(step.step)
        if step.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(base, tmp_path / "cut", interrupt)
    assert steps == [1, 2, 3]
    steps.clear()
    resumed = run(base, tmp_path / "cut", interrupt)
    assert steps[0] == 4
    assert same(resumed.tensors, whole.tensors)
    assert resumed.losses == whole.losses


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_at_a_checkpoint_keeps_the_one_before(
    base: tuple[Model, BaseCard], tmp_path: Path
) -> None:
    def fill(step: StepReport) -> None:
        if step.epoch == 2:
            tmp_path.joinpath(f"last.{os.getpid()}.tmp").unlink(missing_ok=True)
            tmp_path.joinpath(f"last.{os.getpid()}.tmp").symlink_to("/dev/full")

    with pytest.raises(DoesNotFitError, match=r"no space for the checkpoint .*last") as caught:
        run(base, tmp_path, fill)
    assert caught.value.exit_code == 8
    assert "goes on from that checkpoint" in (caught.value.hint or "")
    first: list[StepReport] = []
    run(base, tmp_path, first.append)
    assert first[0].epoch == 2


def test_too_little_memory_says_how_much_would_do(
    base: tuple[Model, BaseCard], tmp_path: Path
) -> None:
    with pytest.raises(DoesNotFitError, match="at least") as caught:
        run(base, tmp_path, resources=Resources(memory=50_000_000))
    said = re.search(r"`--memory (\d+)MB` would fit", caught.value.hint or "")
    assert said is not None
    result = run(base, tmp_path, resources=Resources(memory=int(said[1]) * 1_000_000))
    assert result.plan.peak <= int(said[1]) * 1_000_000
    with pytest.raises(DoesNotFitError, match="would go on was planned with") as caught:
        run(base, tmp_path, resources=Resources(memory=100_000_000))
    assert "`--restart` begins anew" in (caught.value.hint or "")


def test_a_disk_without_room_for_prompts_says_so(
    base: tuple[Model, BaseCard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    given = rows(4, 0)
    prompts = Prompts(base[0], given, torch.float32, spilled=1000, folder=tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DoesNotFitError, match=r"no space for .* keys and values"):
        prompts.fill(lambda read, numbers: None)
    assert not list(tmp_path.iterdir())


def test_memory_that_the_system_does_not_give_names_the_option_that_fits(
    base: tuple[Model, BaseCard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*arguments: object) -> float:
        return float(torch.empty(1 << 60).sum())

    monkeypatch.setattr(Steps, "gradients", allocate)
    with pytest.raises(DoesNotFitError, match="no memory left") as caught:
        run(base, tmp_path)
    assert "--memory" in (caught.value.hint or "")
