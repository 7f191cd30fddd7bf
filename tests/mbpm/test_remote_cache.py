"""The cache of a remote registry: damaged, shared, cut, not to be written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mbpm.fetch.network import Network
from mbpm.registries.cache import Cache, folder_of
from mbpm.registries.config import Known
from mbpm.registries.remote import RemoteRegistry
from tests.support.cli import Cli
from tests.support.static import Static

Publish = Callable[..., None]


def database(cli: Cli, site: Static) -> Path:
    return folder_of(cli.home, site.url) / "index.sqlite"


def test_no_index_file_is_fetched_twice(cli: Cli, site: Static, publish: Publish) -> None:
    for name in ("core", "words", "dates"):
        publish(name)
    for name in ("one", "two", "three"):
        publish(name, requires={"core": "1", "words": "1", "dates": "1"})
        publish(name, "1.1.0", requires={"core": "1", "words": "1", "dates": "1"})
    cli.ok("registry", "add", "team", site.url)
    site.forget()
    cli.ok("install", "one", "two", "three", "-s")
    index = sorted(p.rpartition("/")[2] for p in site.asked if p.startswith("/index/"))
    assert index == ["core", "dates", "one", "three", "two", "words"]


@pytest.mark.parametrize("damage", ["junk", "cut", "other tables", "empty"])
def test_a_damaged_cache_is_made_anew(cli: Cli, team: Static, damage: str) -> None:
    file = database(cli, team)
    for other in file.parent.glob("index.sqlite-*"):
        other.unlink()
    if damage == "junk":
        file.write_bytes(os.urandom(100_000))
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:9000])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        with sqlite3.connect(file) as db:
            db.execute("DROP TABLE packs")
    assert [p["name"] for p in cli.ok("search", "beta", "--json").json["packs"]] == ["beta"]
    cli.ok("install", "beta", "--yes")


def test_a_cache_that_is_cleaned_while_it_is_opened(
    cli: Cli, team: Static, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out, opened = Cache._laid_out, 0

    def slowly(cache: Cache, connection: sqlite3.Connection) -> sqlite3.Connection:
        nonlocal opened
        opened += 1
        if opened == 1:
            shutil.rmtree(cache.folder)
        return lay_out(cache, connection)

    monkeypatch.setattr(Cache, "_laid_out", slowly)
    shutil.rmtree(cli.home / "cache")
    assert "alpha" in cli.ok("search").out
    assert opened == 2


def test_a_damaged_cache_offline_is_an_error_that_says_so(cli: Cli, team: Static) -> None:
    database(cli, team).write_bytes(b"junk" * 1000)
    result = cli("--offline", "show", "alpha")
    assert result.code == 6
    assert "nothing of the registry" in result.err


def test_a_cached_index_file_with_a_flipped_bit_is_fetched_again(cli: Cli, team: Static) -> None:
    cli.ok("show", "alpha")
    with sqlite3.connect(database(cli, team)) as db:
        (raw,) = db.execute("SELECT raw FROM files").fetchone()
        db.execute("UPDATE files SET raw = ?", (raw.replace(b"1.0.0", b"9.0.0"),))
    team.forget()
    assert "alpha 1.0.0" in cli.ok("show", "alpha").out
    assert team.asked == ["/index/al/ph/alpha"]


def test_processes_that_refresh_at_once(
    cli: Cli, team: Static, publish: Publish, always_stale: None
) -> None:
    publish("gamma")
    failures: list[BaseException] = []

    def run() -> None:
        try:
            for _ in range(5):
                known = Known("team", team.url, 50)
                opened = RemoteRegistry(
                    known, cli.home, Network(), warn=failures.append, note=lambda _: None
                )
                assert list(opened.names()) == ["alpha", "beta", "gamma"]
                opened.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_home_that_cannot_be_written(cli: Cli, site: Static, publish: Publish) -> None:
    publish("alpha")
    # a file where the folder of caches would be
    cli.home.mkdir()
    (cli.home / "cache").write_text("in the way")
    assert "alpha" in cli.ok("search", "alpha", "--registry", site.url).out


def test_a_clock_that_was_wrong_does_not_stop_refreshing(
    cli: Cli, team: Static, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    future = time.time() + 1e8
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: future)
        cli.ok("registry", "refresh")
    publish("gamma")
    assert "gamma" in cli.ok("search", "gamma").out
    past = time.time() - 1e8
    publish("delta")
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: past)
        assert "delta" in cli.ok("search", "delta").out
