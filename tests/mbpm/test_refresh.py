"""What is kept of a remote registry, and how much is fetched of it at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mbpm.registries import indexes, refresh
from mbpm.registries.cache import folder_of
from registry_index.summary import read_summary
from registry_index.tree import Registry
from specs.errors import NetworkError
from tests.support.cli import Cli
from tests.support.static import Static, serve

Publish = Callable[..., None]


@pytest.fixture
def site(registry: Path, publish: Publish) -> Iterator[Static]:
    publish("alpha")
    with serve(registry) as site:
        yield site


def root_of(registry: Path) -> dict[str, object]:
    summary = read_summary(Registry(registry))
    assert summary is not None
    found: dict[str, object] = json.loads(summary.root.canonical())
    return found


def test_more_packs_than_can_be_counted(cli: Cli, site: Static, registry: Path) -> None:
    root = {**root_of(registry), "packs": 1 << 70}
    site.changed["/summary/root.json"] = json.dumps(root).encode()
    result = cli("registry", "add", "team", site.url)
    assert result.code == 5
    assert "summary/root.json: `packs`" in result.err


def test_a_base_that_is_longer_than_the_summary_says_costs_only_itself(
    cli: Cli, site: Static, registry: Path
) -> None:
    site.changed["/bases/tiny.json"] = (registry / "bases" / "tiny.json").read_bytes() + b" " * 99
    result = cli.ok("registry", "add", "team", site.url)
    assert "bases/tiny.json: answers with more than the" in result.err
    assert [p["name"] for p in cli.ok("search", "alpha", "--json").json["packs"]] == ["alpha"]
    assert "tiny" not in cli.ok("base", "list").out
    del site.changed["/bases/tiny.json"]
    assert "warning" not in cli.ok("registry", "refresh").err
    assert "tiny" in cli.ok("base", "list").out


def test_pages_that_were_never_applied_do_not_pile_up(
    cli: Cli, site: Static, registry: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*_: object) -> bool:
        raise NetworkError("the line went dead")

    # the refresh breaks off after the pages, again and again
    monkeypatch.setattr(refresh.Refresher, "_cards", broken_off)
    assert cli("registry", "add", "team", site.url).code == 6
    publish("beta")
    root = root_of(registry)
    assert cli("registry", "add", "team", site.url).code == 6
    with sqlite3.connect(folder_of(cli.home, site.url) / "index.sqlite") as db:
        kept = [digest for (digest,) in db.execute("SELECT digest FROM incoming")]
    assert kept == [digest for digest, _ in root["pages"]]  # type: ignore[attr-defined]


def test_pages_in_memory_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "BATCH_BYTES", 100)
    monkeypatch.setattr(refresh, "BATCH", 3)
    pages = [("a", 60), ("b", 40), ("c", 1), ("d", 200), ("e", 1), ("f", 1), ("g", 1), ("h", 1)]
    batches = ["".join(name for name, _ in batch) for batch in refresh._batches(pages)]
    assert batches == ["ab", "c", "d", "efg", "h"]


def test_index_files_that_are_fetched_ahead_have_a_bound(
    cli: Cli, site: Static, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("beta", requires={"gamma": "1"})
    publish("gamma")
    cli.ok("registry", "add", "team", site.url)
    monkeypatch.setattr(indexes, "AHEAD_BYTES", 100)
    tried: list[list[str]] = []
    whole = indexes.Indexes._tried

    def watched(self: indexes.Indexes, refs: Sequence[indexes._Ref]) -> list[bytes | None]:
        tried.append([ref.name for ref in refs])
        return whole(self, refs)

    monkeypatch.setattr(indexes.Indexes, "_tried", watched)
    # each of them has more, and is fetched by itself
    cli.ok("install", "alpha", "beta", "-s")
    assert tried
    assert not any(tried)
