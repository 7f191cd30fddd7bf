"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bases import base_folder, test_home
from tests.support.real_home import RealHome, make_real_home

# Set before torch is imported anywhere: tests must not take all cores of a small machine.
os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Folder of the base `smollm2-135m`."""
    return base_folder("smollm2-135m", "MBPM_TEST_SMOLLM2")


@pytest.fixture(scope="session")
def qwen05() -> Path:
    """Folder of the base `qwen2.5-0.5b` (491 MB): for tests marked `slow` only."""
    return base_folder("qwen2.5-0.5b", "MBPM_TEST_QWEN05")


@pytest.fixture(scope="session")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> RealHome:
    """A home with `smollm2-135m` and the pack `fruit`; tests must leave it as it is."""
    base_dir = base_folder("smollm2-135m", "")
    return make_real_home(test_home(), base_dir, tmp_path_factory.mktemp("real"))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts: whoever started the tests in the background may have had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
