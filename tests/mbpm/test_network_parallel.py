"""Several files at once, and several connections to one file."""

from __future__ import annotations

import random
import shutil
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbpm.fetch import limits, obtain, obtain_all
from mbpm.fetch.job import Job
from mbpm.fetch.network import Network, Slots
from mbpm.output import Output
from mbpm.store import Store
from specs.blobs import CHUNK_BYTES, Blob, FileSource
from specs.errors import DoesNotFitError, NotFoundError
from tests.support.fetching import Watcher, fetch, wanted
from tests.support.servers import Site, serve

DATA = random.Random(4).randbytes(13 * CHUNK_BYTES + 99)
BLOB = Blob.of_bytes("weights.gguf", DATA)
SMALL = {f"/s{i}": random.Random(i).randbytes(3000 + i) for i in range(9)}
SMALL_BLOBS = {path: Blob.of_bytes(path[1:], data) for path, data in SMALL.items()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", tmp_path / "staging")


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(files={"/w": DATA, **SMALL}, etag='"one"')) as site:
        yield site


def asked(site: Site) -> list[range]:
    """The chunks that each ranged request asked for."""
    found = []
    for _, wanted_range in site.requests:
        assert wanted_range is not None
        start, stop = (int(n) for n in wanted_range[6:].split("-"))
        found.append(range(start // CHUNK_BYTES, stop // CHUNK_BYTES + 1))
    return found


def test_a_large_file_is_read_by_several_connections(store: Store, site: Site) -> None:
    site.pauses = [0.3]
    watcher = fetch(store, BLOB, site.url + "/w")
    assert 1 < site.most <= limits.CONNECTIONS
    assert sorted(index for run in asked(site) for index in run) == list(range(14))
    assert site.sent == len(DATA)
    assert sum(watcher.moved) == len(DATA)


def test_a_connection_that_hangs_is_relieved(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one has four chunks to bring, and never brings one."""
    monkeypatch.setattr(limits, "RELIEF_SECONDS", 0.1)
    site.pauses = [1.5]
    watcher = fetch(store, BLOB, site.url + "/w")
    relieved = [run for run in asked(site)[1:] if 3 in run]
    assert relieved, "its last chunk was asked for by another"
    assert sum(watcher.moved) == len(DATA), "whoever brings a chunk, it counts once"


def test_a_server_that_wants_one_connection_gets_one(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Slots.take
    tried: list[bool] = []

    def take(self: Slots, url: str) -> bool:
        """The first reader has its answer, and the second one's will be a refusal."""
        tried.append(real(self, url))
        site.statuses = [429]
        return tried[-1]

    monkeypatch.setattr(limits, "CONNECTIONS", 2)
    monkeypatch.setattr(Slots, "take", take)
    site.pauses = [0.5]
    fetch(store, BLOB, site.url + "/w")
    assert tried == [True], "it came once and never again"


def test_files_come_side_by_side_within_bounds(store: Store, site: Site) -> None:
    site.pauses = [0.2] * len(SMALL)
    watcher = Watcher()
    items = [wanted(blob, site.url + path) for path, blob in SMALL_BLOBS.items()]
    obtain_all(store, items, Network(), watcher)
    assert all(store.has(blob) for blob in SMALL_BLOBS.values())
    assert 1 < site.most <= limits.CONNECTIONS
    assert sorted(watcher.files) == sorted(item.what for item in items)


def test_small_files_share_connections(store: Store, site: Site) -> None:
    network = Network()
    for path, blob in SMALL_BLOBS.items():
        fetch(store, blob, site.url + path, network=network)
    assert len(network.client._clients) == 1
    assert len({headers["host"] for headers in site.headers}) == 1
    (client,) = network.client._clients.values()
    assert len(client._transport._pool.connections) == 1


def test_the_same_blob_twice_is_fetched_once(store: Store, site: Site) -> None:
    blob = SMALL_BLOBS["/s0"]
    twice = [wanted(blob, site.url + "/s0"), wanted(blob, site.url + "/s0", title="base other")]
    obtain_all(store, twice, Network(), Watcher())
    assert len(site.requests) == 1


def test_nothing_is_asked_for_what_is_here(store: Store, site: Site) -> None:
    fetch(store, SMALL_BLOBS["/s0"], site.url + "/s0")
    fetch(store, SMALL_BLOBS["/s0"], site.url + "/s0")
    assert len(site.requests) == 1


def test_one_failure_ends_all_and_keeps_what_came(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The large file has its first chunk when the other turns out not to exist."""
    began = threading.Event()

    class Slow(Watcher):
        def advance(self, count: int) -> None:
            began.set()

    def gone(file: Path, job: Job, start: int) -> None:
        assert began.wait(30)
        raise NotFoundError("no such file")

    monkeypatch.setattr(obtain, "from_file", gone)
    site.pauses = [0.0, *[0.5] * 10]
    items = [
        wanted(BLOB, site.url + "/w"),
        wanted(SMALL_BLOBS["/s1"], FileSource(path="/gone")),
    ]
    with pytest.raises(NotFoundError, match="no such file"):
        obtain_all(store, items, Network(), Slow())
    (part,) = store.parts.glob("*.part")
    assert ".0." in part.name, "it was given up, so that the next command may have it"
    marks = part.with_suffix(".chunks").read_bytes()
    kept = {index for index in range(14) if marks[index : index + 1] == b"1"}
    assert kept
    site.pauses.clear()
    site.requests.clear()
    fetch(store, BLOB, site.url + "/w")
    assert {index for run in asked(site) for index in run} == set(range(14)) - kept


def test_space_is_checked_for_everything_together(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mbpm import files

    usage = namedtuple("usage", "total used free")
    room = 4000 + files.SPARE_BYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, room))
    items = [wanted(SMALL_BLOBS[path], site.url + path) for path in ("/s0", "/s1")]
    with pytest.raises(DoesNotFitError, match=r"2 files\) needs 6.0 kB"):
        obtain_all(store, items, Network(), Watcher())
    assert site.requests == []
    fetch(store, SMALL_BLOBS["/s0"], site.url + "/s0")


def test_what_a_part_file_holds_needs_no_more_space(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mbpm import files

    store.parts.mkdir(parents=True)
    half = DATA[: 7 * CHUNK_BYTES]
    (store.parts / f"{BLOB.sha256}.elsewhere.0.{'0' * 32}.part").write_bytes(half)
    usage = namedtuple("usage", "total used free")
    room = len(DATA) - len(half) + files.SPARE_BYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, room))
    fetch(store, BLOB, site.url + "/w")


def test_mirrors_take_over_chunk_by_chunk(store: Store, site: Site, tmp_path: Path) -> None:
    """Each of three sources has something wrong, and together they have it all."""
    first, second = bytearray(DATA), bytearray(DATA)
    first[5 * CHUNK_BYTES] ^= 1
    second[CHUNK_BYTES] ^= 1
    site.files["/first"], site.files["/second"] = bytes(first), bytes(second)
    half = tmp_path / "half"
    half.write_bytes(DATA[: 3 * CHUNK_BYTES])
    watcher = fetch(
        store, BLOB, FileSource(path=str(half)), site.url + "/first", site.url + "/second"
    )
    assert sum(watcher.moved) == len(DATA)
    assert {path for path, _ in site.requests} == {"/first", "/second"}
    second_asked = [r for path, r in site.requests if path == "/second"]
    assert second_asked == [f"bytes={5 * CHUNK_BYTES}-{6 * CHUNK_BYTES - 1}"]


def test_a_source_that_holds_something_else_is_left_soon(store: Store, site: Site) -> None:
    site.files["/other"] = random.Random(5).randbytes(len(DATA))
    fetch(store, BLOB, site.url + "/other", site.url + "/w")
    wasted = site.sent - len(DATA)
    most = limits.CONNECTIONS * limits.SEGMENT_CHUNKS * CHUNK_BYTES
    assert wasted <= most


def test_one_line_per_file_without_a_terminal(
    store: Store, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [wanted(SMALL_BLOBS[path], site.url + path) for path in ("/s0", "/s1")]
    obtain_all(store, items, Network(), Output())
    lines = sorted(capsys.readouterr().err.splitlines())
    assert lines == ["fetching s0 of base tiny (3.0 kB)", "fetching s1 of base tiny (3.0 kB)"]


@pytest.mark.parametrize("mode", ["json", "quiet"])
def test_no_line_at_all(
    store: Store, site: Site, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    out = Output(mode="json" if mode == "json" else "quiet")
    obtain_all(store, [wanted(SMALL_BLOBS["/s0"], site.url + "/s0")], Network(), out)
    assert capsys.readouterr() == ("", "")


def test_slots_are_lent_to_whoever_waits_first() -> None:
    slots, never = Slots(), threading.Event()
    url = "http://host:1/x"
    held = [slots.take(url) for _ in range(limits.CONNECTIONS + 1)]
    assert held == [True] * limits.CONNECTIONS + [False]
    assert slots.take("http://other/x"), "another host has its own"
    got = threading.Event()

    def wait() -> None:
        with slots.hold(url, never):
            got.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while not slots.wanted(url):
        pass
    slots.give(url)
    assert got.wait(10)
    thread.join(10)
    assert not slots.wanted(url)
