"""How much is tried, and from where: `make torture` tries everything."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from tests.torture.runner import Report, warm_up
from tests.torture.world import World, world

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
            made = stack.enter_context(world(tmp_path_factory.mktemp("world")))
            warm_up(made, tmp_path_factory.mktemp("warm") / "home")
        yield made


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was tried, all tests together."""
    total = Report()
    for passed in terminalreporter.getreports("passed"):
        for name, value in passed.user_properties:
            if name == "torture":
                total.add(Report(**value))
    if total.kills:
        terminalreporter.write_line(f"torture: {total}")
