"""What the machine has, with the driver's tool played by a script."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mbpm.hardware import detect
from specs.errors import UsageError
from specs.versions import Requirement, Version


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that alone is searched for programs; `nvidia-smi` prints `answer` there."""
    if os.name == "nt":
        pytest.skip("plays the driver with a shell script")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install_driver(folder: Path, answer: str, code: int = 0) -> None:
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\nprintf '{answer}'\nexit {code}\n")
    script.chmod(0o755)


def test_memory_is_that_of_this_machine() -> None:
    found = detect({})
    if "__ram" not in found:
        pytest.skip("the system does not tell")
    assert Requirement(">=0.1").admits(found["__ram"])
    assert not Requirement(">=100000").admits(found["__ram"])


def test_gpu_with_the_most_memory_counts(driver: Path) -> None:
    install_driver(driver, "8192, 8.6\\n15360, 7.5\\n")
    found = detect({})
    assert found["__vram"] == Version("15.0.0")
    assert found["__cc"] == Version("7.5.0")


@pytest.mark.parametrize(
    ("answer", "code"),
    [("NVIDIA-SMI has failed\\n", 9), ("[N/A], 7.5\\n", 0), ("", 0), ("1, 2, 3\\n", 0)],
)
def test_a_driver_that_does_not_answer_means_no_gpu(driver: Path, answer: str, code: int) -> None:
    install_driver(driver, answer, code)
    assert "__vram" not in detect({})
    assert "__cc" not in detect({})


def test_no_driver_means_no_gpu(driver: Path) -> None:
    assert set(detect({"MBPM_OVERRIDE_RAM": "16"})) == {"__ram"}


def test_overrides_come_first(driver: Path) -> None:
    install_driver(driver, "8192, 8.6\\n")
    environ = {"MBPM_OVERRIDE_VRAM": "12", "MBPM_OVERRIDE_CC": "7.5", "MBPM_OVERRIDE_RAM": "1.5.2"}
    found = detect(environ)
    assert {n: str(v) for n, v in found.items()} == {
        "__ram": "1.5.2",
        "__vram": "12.0.0",
        "__cc": "7.5.0",
    }


def test_an_empty_override_takes_it_away(driver: Path) -> None:
    install_driver(driver, "8192, 8.6\\n")
    found = detect({"MBPM_OVERRIDE_VRAM": "", "MBPM_OVERRIDE_RAM": " "})
    assert set(found) == {"__cc"}
    assert len(found) == 1


@pytest.mark.parametrize("bad", ["much", "-1", "1e3", "8 GiB", "1.2.3.4", "9" * 50])
def test_an_override_that_is_no_number(bad: str) -> None:
    with pytest.raises(UsageError) as caught:
        detect({"MBPM_OVERRIDE_VRAM": bad})["__vram"]
    assert (
        caught.value.message == f"MBPM_OVERRIDE_VRAM: `{bad}` is not a number such as `8` or `7.5`"
    )
    assert "empty" in (caught.value.hint or "")


def test_nothing_is_looked_at_before_it_is_asked_for(driver: Path) -> None:
    mark = driver / "asked"
    script = driver / "nvidia-smi"
    script.write_text(f"#!/bin/sh\n: > {mark}\n")
    script.chmod(0o755)
    found = detect({})
    found.get("__ram")
    assert not mark.exists()
    assert found.get("__cc") is None
    assert mark.exists()
