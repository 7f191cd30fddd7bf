"""What the native engine leaves on the disk is checked, counted and freed as everything else is."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from runtime.native import why_not
from tests.support.cli import Cli
from tests.support.real_home import RealHome

pytestmark = pytest.mark.skipif(why_not() is not None, reason="the extension was not built")


def test_packed_weights_are_checked_and_freed(real_home: RealHome, tmp_path: Path) -> None:
    shutil.copytree(real_home.path, tmp_path / "home", copy_function=shutil.copy)
    cli = Cli(tmp_path / "home")
    for file in cli.home.rglob("packed*.bin"):
        file.unlink()
    ask = ("run", "Hello", "--max-tokens", "3", "--temperature", "0", "--device", "cpu")
    first = cli.ok(*ask, "--engine", "native")
    assert "preparing the weights for this engine, once" in first.err
    (packed,) = cli.home.rglob("packed.bin")
    (text,) = cli.home.rglob("packed-tokenizer.bin")
    assert cli.ok(*ask).out == first.out
    cli.ok("verify")

    raw = bytearray(packed.read_bytes())
    raw[-5000] ^= 1
    packed.unlink()
    packed.write_bytes(raw)
    done = cli("verify")
    assert done.code == 5 and f"{packed}: was changed" in done.out + done.err
    done = cli.ok("repair", "--dry-run", "--json")
    assert packed.exists() and done.json["changed"] is False
    assert cli("repair").code == 2 and packed.exists()  # there is nobody to ask
    done = cli.ok("repair", "--yes")
    assert "repair     packed.bin of base smollm2-135m: the next run makes it anew" in done.out
    assert "every byte is right" not in done.err and not packed.exists()
    cli.ok("verify")
    packed.mkdir()
    assert cli("verify").code == 5
    assert cli.ok("repair", "--yes", "--json").json["changed"] is True
    assert not packed.exists()
    assert cli.ok("repair", "--json").json["changed"] is False
    assert cli.ok(*ask).out == first.out

    begun = packed.with_name(".packed.bin.killed")
    begun.write_bytes(b"x" * 100)
    found = cli.ok("gc", "--yes", "--json").json["found"]
    assert [w for w in found if "packed" in w["what"]] == [] and begun.exists()
    os.utime(begun, (time.time() - 7200,) * 2)
    cli.ok("gc", "--yes")
    assert packed.exists() and not begun.exists()
    size = len(raw) + text.stat().st_size
    assert cli.ok("clean", "--yes", "--json").json["freed_bytes"] == size
    assert not packed.exists() and not text.exists()
    again = cli.ok(*ask)
    assert "preparing the weights" in again.err and again.out == first.out
    cli.ok("verify")


def test_engines_that_do_not_go_with_the_rest(real_home: RealHome) -> None:
    done = real_home("run", "Hello", "--engine", "native", "--device", "cuda")
    assert done.returncode == 2 and "`--engine torch`" in done.stderr
    done = real_home("run", "Hello", "--engine", "gpu")
    assert done.returncode == 2 and "is not an engine" in done.stderr
    done = real_home("run", "Hello", "--engine", "torch", "--precision", "int4")
    assert done.returncode == 2 and "is the native engine's" in done.stderr


def test_doctor_names_the_instruction_set_and_bases_that_torch_answers(
    real_home: RealHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = Cli(real_home.path)
    monkeypatch.setenv("MBPM_ISA", "portable")
    assert "the engine for this processor: portable" in cli.ok("doctor", "--offline").out
    monkeypatch.setattr("runtime.native._native.unsupported", lambda config: "its heads are odd")
    found = cli.ok("doctor", "--offline").out
    assert "does not compute this model: its heads are odd; torch answers, more slowly" in found
    monkeypatch.setenv("MBPM_ISA", "sse9")
    done = cli("doctor", "--offline")
    assert done.code == 1 and "cannot run `sse9`" in done.out
    monkeypatch.setattr("runtime.native._native.INTERFACE", 0)
    found = cli.ok("doctor", "--offline").out
    assert "was built for another version of mbpm; torch answers and trains, more slowly" in found
    assert "--force-reinstall" in found
