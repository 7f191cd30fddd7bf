"""Fixtures of the package manager's tests: a home, and a registry with a tiny base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mbpm.fetch import limits
from tests.support.cli import Cli
from tests.support.packs import pack_folder, published, registry_with_base


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """`mbpm` on an empty home."""
    return Cli(tmp_path / "home")


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry with the base `tiny` and no packs."""
    root = tmp_path / "registry"
    registry_with_base(root, tmp_path / "base-files")
    return root


@pytest.fixture
def publish(tmp_path: Path, registry: Path) -> Callable[..., None]:
    """Publish a pack: `publish("alpha", "1.0.0", requires={"beta": "1"})`."""

    def make(name: str, version: str = "1.0.0", **changes: Any) -> None:
        folder = pack_folder(tmp_path / "made" / f"{name}-{version}", name, version, **changes)
        published(folder, registry)

    return make


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BACKOFF_SECONDS", 0.0)
