"""Fetching over a network that misbehaves: plain addresses."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbpm.fetch import limits, parts
from mbpm.fetch.assembly import Part
from mbpm.fetch.network import Network
from mbpm.store import Store
from specs.blobs import CHUNK_BYTES, Blob, FileSource
from specs.errors import (
    AuthError,
    DoesNotFitError,
    IntegrityError,
    MbpmError,
    NetworkError,
    NotFoundError,
)
from tests.support.fetching import Watcher
from tests.support.fetching import fetch as fetch_blob
from tests.support.servers import Site, serve

DATA = random.Random(1).randbytes(2 * CHUNK_BYTES + 1000)
BLOB = Blob.of_bytes("weights.gguf", DATA)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", tmp_path / "staging")


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(files={"/w": DATA})) as site:
        yield site


def fetch(store: Store, *sources: FileSource | str, offline: bool = False) -> Watcher:
    return fetch_blob(store, BLOB, *sources, network=Network(offline=offline))


def test_one_request_when_all_is_well(store: Store, site: Site) -> None:
    watcher = fetch(store, site.url + "/w")
    assert site.requests == [("/w", None)]
    assert watcher.moved == [CHUNK_BYTES, CHUNK_BYTES, 1000]
    fetch(store, site.url + "/w")
    assert len(site.requests) == 1


def test_cut_connection_goes_on_where_it_broke(store: Store, site: Site) -> None:
    site.cuts = [CHUNK_BYTES + 5]
    watcher = fetch(store, site.url + "/w")
    assert site.requests[1:] == [("/w", f"bytes={CHUNK_BYTES + 5}-{len(DATA) - 1}")]
    assert site.sent == len(DATA), "not a byte comes twice"
    assert sum(watcher.moved) == len(DATA)


def test_patience_is_renewed_by_progress(store: Store, site: Site) -> None:
    site.statuses = [503, 503, 503]
    site.cuts = [CHUNK_BYTES, 10]
    fetch(store, site.url + "/w")


def test_gives_up_without_progress(store: Store, site: Site) -> None:
    site.statuses = [503] * limits.RETRIES
    with pytest.raises(NetworkError, match="answers 503") as caught:
        fetch(store, site.url + "/w")
    assert len(site.requests) == limits.RETRIES
    assert "what was fetched is kept" in (caught.value.hint or "")


def test_resumes_in_another_process(store: Store, site: Site) -> None:
    site.cuts = [CHUNK_BYTES + 7, *[0] * limits.RETRIES]
    with pytest.raises(NetworkError):
        fetch(store, site.url + "/w")
    (part,) = store.parts.glob("*.part")
    assert part.stat().st_size == CHUNK_BYTES
    assert part.with_suffix(".chunks").read_bytes() == b"100"
    before = site.sent
    watcher = fetch(store, site.url + "/w")
    assert site.sent - before == len(DATA) - CHUNK_BYTES
    assert watcher.moved[0] == CHUNK_BYTES, "the adopted chunk counts once it is verified again"


def test_adopted_part_is_not_believed(store: Store, site: Site) -> None:
    store.parts.mkdir(parents=True)
    rotten = bytearray(DATA)
    rotten[5] ^= 1
    (store.parts / f"{BLOB.sha256}.elsewhere.0.{'0' * 32}.part").write_bytes(rotten)
    fetch(store, site.url + "/w")
    assert site.requests == [("/w", f"bytes=0-{CHUNK_BYTES - 1}")]


def test_part_of_a_living_process_is_left_alone(store: Store, site: Site) -> None:
    store.parts.mkdir(parents=True)
    host = parts._host()
    theirs = store.parts / f"{BLOB.sha256}.{host}.{os.getppid()}.{'0' * 32}.part"
    theirs.write_bytes(DATA)
    claimed = parts.claim(store.parts, BLOB.sha256)
    assert claimed.stat().st_size == 0
    assert theirs.exists()
    os.utime(theirs, (0, 0))
    assert parts.claim(store.parts, BLOB.sha256).stat().st_size == len(DATA)
    assert not theirs.exists()


def test_server_without_ranges(store: Store, site: Site) -> None:
    site.ranges = False
    site.cuts = [CHUNK_BYTES + 5]
    watcher = fetch(store, site.url + "/w")
    assert watcher.moved == [CHUNK_BYTES, CHUNK_BYTES, 1000], "no chunk counts twice"


def test_file_that_changes_between_two_requests(store: Store, site: Site) -> None:
    site.etag, site.cuts = '"one"', [CHUNK_BYTES + 5]
    watcher = fetch(store, site.url + "/w")
    assert watcher.moved == [CHUNK_BYTES, CHUNK_BYTES, 1000]
    assert site.requests[1][1] is not None


def test_wrong_byte_names_chunk_and_source_and_the_next_one_is_tried(
    store: Store, site: Site
) -> None:
    bad = bytearray(DATA)
    bad[CHUNK_BYTES + 1] ^= 1
    site.files["/bad"] = bytes(bad)
    watcher = fetch(store, site.url + "/bad", site.url + "/w")
    (said,) = [s for s in watcher.said if "trying the next source" in s]
    assert "weights.gguf of base tiny" in said
    assert f"chunk 1 (bytes {CHUNK_BYTES:,} to {2 * CHUNK_BYTES - 1:,})" in said
    assert site.url + "/bad" in said
    only_the_bad_one = ("/w", f"bytes={CHUNK_BYTES}-{2 * CHUNK_BYTES - 1}")
    assert [r for r in site.requests if r[0] == "/w"] == [only_the_bad_one]
    again = site.requests.count(("/bad", only_the_bad_one[1]))
    assert again == limits.WRONG_RETRIES
    assert sorted(watcher.moved) == [1000, CHUNK_BYTES, CHUNK_BYTES]


def test_all_sources_are_listed(store: Store, site: Site, tmp_path: Path) -> None:
    site.files["/bad"] = b"?" * len(DATA)
    site.files["/short"] = DATA[:-1]
    urls = [site.url + path for path in ("/bad", "/short", "/none")]
    with pytest.raises(IntegrityError) as caught:
        fetch(store, *urls, FileSource(path="nowhere"))
    for text in (*urls, "wrong digest", "are expected", "404", "no such file"):
        assert text in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthError), (403, AuthError), (404, NotFoundError), (418, NetworkError)],
)
def test_answers_that_end_it_at_once(
    store: Store, site: Site, status: int, kind: type[MbpmError]
) -> None:
    site.statuses = [status]
    with pytest.raises(kind, match=str(status)):
        fetch(store, site.url + "/w")
    assert len(site.requests) == 1


def test_file_that_is_too_long(store: Store, site: Site) -> None:
    site.files["/w"] = DATA + b"more"
    with pytest.raises(IntegrityError, match="are expected"):
        fetch(store, site.url + "/w")


def test_answer_with_another_range(store: Store, site: Site) -> None:
    site.cuts, site.lies = [CHUNK_BYTES + 5], 1
    with pytest.raises(IntegrityError, match="another range than was asked for"):
        fetch(store, site.url + "/w")


def test_nobody_listens(store: Store) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(NetworkError, match="refused"):
        fetch(store, f"http://127.0.0.1:{port}/w")


def test_stalled_server(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(limits, "RETRIES", 2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(NetworkError, match="nothing came"):
            fetch(store, f"http://127.0.0.1:{deaf.getsockname()[1]}/w")


def test_odd_address(store: Store) -> None:
    with pytest.raises(NetworkError, match="not an address"):
        fetch(store, "http://[::1/w")


def test_offline_touches_nothing(store: Store, site: Site, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="--offline") as caught:
        fetch(store, site.url + "/w", offline=True)
    assert site.requests == []
    assert "without `--offline`" in (caught.value.hint or "")
    (store.root / "local").write_bytes(DATA)
    fetch(store, site.url + "/w", FileSource(path=str(store.root / "local")), offline=True)


def test_disk_full_while_fetching(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Part, "_mark", full)
        with pytest.raises(OSError, match="No space") as caught:
            fetch(store, site.url + "/w", site.url + "/w")
    assert caught.value.errno == errno.ENOSPC
    assert len(site.requests) == 1, "another source would not help"
    fetch(store, site.url + "/w")


def test_space_is_checked_first(store: Store, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, len(DATA) - 1))
    with pytest.raises(DoesNotFitError, match="are free"):
        fetch(store, site.url + "/w")
    assert site.requests == []
