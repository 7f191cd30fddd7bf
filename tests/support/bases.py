"""Real bases for tests, installed once with the program itself and kept between runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def test_home() -> Path:
    """The home that tests share to hold bases: `MBPM_TEST_HOME`, or one in the repository."""
    return Path(os.environ.get("MBPM_TEST_HOME") or REPOSITORY / ".cache" / "test-home")


def base_folder(name: str, override: str) -> Path:
    """The folder of an installed base.

    Args:
        override: environment variable that may name a base folder to use instead; empty for none.
    """
    if override and os.environ.get(override):
        return Path(os.environ[override])
    from mbpm.home import Home

    home = Home(test_home())
    if home.current().base(name) is None:
        command = [sys.executable, "-m", "mbpm", "--home", str(test_home())]
        done = subprocess.run(
            [*command, "base", "install", name, "--yes"], capture_output=True, text=True
        )
        if done.returncode:
            pytest.fail(f"the base {name} could not be installed: {done.stderr}", pytrace=False)
    installed = home.current().base(name)
    assert installed is not None
    return home.base_dir(installed)
