"""Fixtures of the package manager's tests: a home, and a registry with a tiny base."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mbpm.fetch import limits
from mbpm.registries import remote
from registry_index.publish import publish_base
from registry_index.tree import Registry
from tests.support.cli import Cli
from tests.support.packs import pack_folder, published, registry_with_base
from tests.support.static import Static, serve


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


@pytest.fixture
def site(registry: Path, tmp_path: Path) -> Iterator[Static]:
    """The test registry behind a web server; it has the base's weights too."""
    card = Registry(registry).base("tiny")
    publish_base(card, registry, {"weights.gguf": tmp_path / "base-files" / "tiny.gguf"})
    with serve(registry) as site:
        yield site


@pytest.fixture
def team(cli: Cli, site: Static, publish: Callable[..., None]) -> Static:
    """It holds two packs and is configured as `team`."""
    publish("alpha", provides=("letters",), description="Answers about Ärzte and letters")
    publish("beta", requires={"alpha": "1"})
    cli.ok("registry", "add", "team", site.url)
    site.forget()
    return site


@pytest.fixture
def always_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command asks what changed."""
    monkeypatch.setattr(remote, "FRESH_SECONDS", 0.0)


@pytest.fixture
def mbundle(tmp_path: Path) -> Path:
    """Where a bundle goes."""
    return tmp_path / "stick" / "packs.mbundle"


@pytest.fixture
def other(tmp_path: Path) -> Cli:
    """`mbpm` on another machine."""
    return Cli(tmp_path / "other-home")


@pytest.fixture
def office(cli: Cli, registry: Path, publish: Callable[..., None]) -> Cli:
    """A home with `letters` and what it needs."""
    publish("words", files={"LICENSE": b"the same words"})
    publish("tone", files={"LICENSE": b"the same words"})
    publish("letters", requires={"words": "1"}, recommends={"tone": "*"}, notes="News")
    cli.ok("install", "letters", "--registry", registry, "--yes")
    return cli


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BACKOFF_SECONDS", 0.0)
