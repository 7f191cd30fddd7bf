"""The benchmarks report honestly; how fast anything is, is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

import bench.__main__ as program
from bench import startup
from bench.peers import SERVER_VARIABLE, llama_server
from bench.processes import Child, TrainWorker, peak_resident
from bench.random_adapter import RANK, random_adapter, rotary_order, write_gguf
from bench.report import Case, Report
from runtime.engine import ModelConfig
from specs.base_card import ModuleShape
from specs.errors import MbpmError
from tests.support.packs import tiny_base
from tests.support.tiny_base import write_tiny_base

CONFIG = ModelConfig("llama", 2, 16, 32, 4, 2, 4, 100, 64, 1e4, 1e-5, False)


def test_a_ratio_above_one_means_ours_is_better() -> None:
    slower = Case.of_rounds("c", [300, 200, 100], [100.0], "p", "ms", higher_is_better=False)
    assert (slower.ours, slower.ratio, slower.rounds) == (200, 0.5, 3)
    faster = Case.of_rounds("c", [20], [10], "p", "tokens/s", higher_is_better=True)
    assert faster.ratio == 2


def test_a_peer_that_is_not_installed_is_said_so() -> None:
    case = Case.of_rounds("c", [1.0], None, "llama.cpp", "ms", higher_is_better=False)
    report = Report("startup", {"cpu": "x"}, [case])
    assert report.document()["cases"] == [
        {
            "case": "c",
            "ours": 1.0,
            "peer": None,
            "peer_name": "llama.cpp",
            "ratio": None,
            "unit": "ms",
            "rounds": 1,
        }
    ]
    assert "not installed" in report.table()


def test_startup_prints_one_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(startup, "MIN_ROUNDS", 1)
    monkeypatch.setattr(program, "MIN_ROUNDS", 1)
    monkeypatch.setattr("bench.startup.program", lambda name: None)
    monkeypatch.setattr("bench.startup.llama_server", lambda: None)
    monkeypatch.setenv("MBPM_HOME", str(tmp_path / "before"))  # restored at the end
    assert program.main(["startup", "--json", "--rounds", "1", "--home", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert set(report) == {"bench", "machine", "cases"}
    assert report["machine"]["cores"] >= 1
    measured = {(c["case"], c["peer_name"]): c for c in report["cases"]}
    assert measured["mbpm list", "pip list"]["ratio"] > 0
    assert measured["mbpm --version", "uv --version"]["peer"] is None
    assert "uv is not installed" in captured.err and "no base is installed" in captured.err


def test_a_missing_base_is_an_error_with_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["decode", "--home", str(tmp_path)]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "base `smollm2-135m` is not installed" in captured.err
    assert "hint: `mbpm base install smollm2-135m`" in captured.err


def test_the_peer_named_by_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "llama-server"
    binary.touch()
    monkeypatch.setenv(SERVER_VARIABLE, str(binary))
    assert llama_server() == binary
    wrapper = tmp_path / "llama-cpp-server"
    wrapper.write_text(f"#!/bin/sh\necho 'Build info:'\necho '  binary_path: {binary}'\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv(SERVER_VARIABLE, str(wrapper))
    assert llama_server() == binary
    monkeypatch.delenv(SERVER_VARIABLE)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert llama_server() is None


def test_the_adapter_for_llama_cpp_holds_the_same_numbers(tmp_path: Path) -> None:
    modules = {
        f"model.layers.0.{name}": ModuleShape(out_features=rows, in_features=16)
        for name, rows in (("self_attn.q_proj", 16), ("self_attn.k_proj", 8), ("mlp.up_proj", 32))
    }
    card = tiny_base(tmp_path, modules=modules)
    tensors = random_adapter(card)
    file = tmp_path / "adapter.gguf"
    write_gguf(tensors, CONFIG, file)
    read = {t.name: t.data for t in gguf.GGUFReader(file).tensors}
    assert set(read) == {
        f"blk.0.{name}.weight.lora_{half}"
        for name in ("attn_q", "attn_k", "ffn_up")
        for half in "ab"
    }
    up = tensors["model.layers.0.mlp.up_proj.lora_B.weight"]
    np.testing.assert_array_equal(read["blk.0.ffn_up.weight.lora_b"], up)
    query = tensors["model.layers.0.self_attn.q_proj.lora_B.weight"]
    assert query.shape == (16, RANK)
    # head 0 has rows 0-3: halves (0, 1) and (2, 3) become the pairs (0, 2) and (1, 3)
    np.testing.assert_array_equal(read["blk.0.attn_q.weight.lora_b"][:4], query[[0, 2, 1, 3]])
    np.testing.assert_array_equal(rotary_order(query, 4)[4:8], query[[4, 6, 5, 7]])


def test_our_side_of_training_learns_within_the_limit_it_is_given(tmp_path: Path) -> None:
    write_tiny_base(tmp_path / "tiny")
    rows = [([*range(10, 30)], start, 4) for start in (0, 0, 2)]
    with TrainWorker("ours", tmp_path / "tiny", 2_000_000_000) as worker:
        first = worker.ask({"rows": rows, "batch": 2, "epochs": 3})
        goes_on = worker.ask({"rows": rows, "batch": 2, "epochs": 3, "goes_on": True})
    assert len(first["seconds"]) == len(first["losses"]) == 6
    assert goes_on["losses"][-1] < first["losses"][0]
    with pytest.raises(MbpmError, match="takes at least"):
        TrainWorker("ours", tmp_path / "tiny", 1).ask({"rows": rows, "batch": 2, "epochs": 1})


@pytest.mark.skipif(sys.platform == "win32", reason="needs wait4")
def test_peak_memory_counts_what_the_process_touched() -> None:
    small = peak_resident([sys.executable, "-c", "pass"])
    large = peak_resident([sys.executable, "-c", "b'x' * 200_000_000"])
    assert 150e6 < large - small < 260e6
    with pytest.raises(MbpmError, match="no such thing"):
        peak_resident([sys.executable, "-c", "raise SystemExit('no such thing')"])


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
def test_a_paused_child_does_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    count = "import sys\nn = 0\nfor line in sys.stdin:\n    n += 1\n    print(n, flush=True)\n"
    with Child([sys.executable, "-c", count], threads=1, pipes=True) as child:
        assert child.process.stdin is not None
        assert child.process.stdout is not None
        child.process.stdin.write("x\n")
        child.process.stdin.flush()
        assert child.process.stdout.readline() == "1\n"
        child.pause()
        status = Path(f"/proc/{child.process.pid}/stat")
        if status.exists():
            subprocess.run(["sleep", "0.05"], check=True)
            assert status.read_text().rpartition(")")[2].split()[0] == "T"
        child.resume()
        child.process.stdin.write("x\n")
        child.process.stdin.flush()
        assert child.process.stdout.readline() == "2\n"
    assert child.process.poll() is not None
