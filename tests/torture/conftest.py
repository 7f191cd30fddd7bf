"""How much is tried, and from where: `make torture` tries everything."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.torture.runner import Report, warm_up
from tests.torture.world import World, world

PLENTY_BYTES = 2_000_000_000
SHARDS = 20
"""Into how many tests `make torture` cuts its kills, so that several workers share them."""


@pytest.fixture(scope="session")
def seed() -> str:
    """What all randomness comes from: `MBPM_TORTURE_SEED`; a failure tells it."""
    return os.environ.get("MBPM_TORTURE_SEED") or str(random.SystemRandom().randrange(10**9))


@pytest.fixture(scope="session")
def kills() -> int:
    """How many kills `make torture` takes: `MBPM_TORTURE_KILLS`, 1,000 unless set."""
    return int(os.environ.get("MBPM_TORTURE_KILLS") or 1000)


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """What there is to install."""
    with contextlib.ExitStack() as stack:
        # waiting for a disk is most of the time this takes
        with mock.patch("os.fsync"):
            folder = stack.enter_context(_roomy(tmp_path_factory.mktemp("torture")))
            made = stack.enter_context(world(folder / "world"))
            warm_up(made, folder / "warm")
        yield made


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder for homes."""
    with _roomy(tmp_path) as folder:
        yield folder


@contextlib.contextmanager
def _roomy(otherwise: Path) -> Iterator[Path]:
    """A folder in memory where there is plenty: to remove files from a disk takes most of the
    time that these tests take."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < PLENTY_BYTES:
        yield otherwise
        return
    with tempfile.TemporaryDirectory(prefix="mbpm-torture-", dir=memory) as folder:
        yield Path(folder)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was tried, all tests together."""
    total = Report()
    for passed in terminalreporter.getreports("passed"):
        for name, value in passed.user_properties:
            if name == "torture":
                total.add(Report(**value))
    if total.kills:
        terminalreporter.write_line(f"torture: {total}")
