"""Answers that are not what was hoped for, one at a time."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from mbpm.fetch import limits
from mbpm.fetch.job import StoppedError
from mbpm.fetch.retry import AgainError, Patience, retry_after
from mbpm.store import Store
from specs.blobs import CHUNK_BYTES, Blob
from specs.errors import IntegrityError, NetworkError, NotFoundError
from tests.support.fetching import fetch
from tests.support.misbehaving import Misbehaving, misbehave
from tests.support.servers import Site, serve

DATA = random.Random(10).randbytes(2 * CHUNK_BYTES + 1000)
BLOB = Blob.of_bytes("weights.gguf", DATA)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", tmp_path / "staging")


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(files={"/w": DATA})) as site:
        yield site


def test_a_strong_tag_is_sent_back(store: Store, site: Site) -> None:
    site.etag, site.cuts = '"one"', [5]
    fetch(store, BLOB, site.url + "/w")
    assert [h.get("if-range") for h in site.headers] == [None, '"one"']
    assert site.sent == len(DATA)


def test_a_weak_tag_promises_nothing(store: Store, site: Site) -> None:
    site.etag, site.cuts = 'W/"one"', [5]
    fetch(store, BLOB, site.url + "/w")
    assert [h.get("if-range") for h in site.headers] == [None, None]


def test_a_tag_that_cannot_be_sent_back_is_none(store: Store, site: Site) -> None:
    site.etag, site.cuts = '"\u00e9"', [5]
    fetch(store, BLOB, site.url + "/w")
    assert [h.get("if-range") for h in site.headers] == [None, None]


def test_a_tag_that_changes_costs_no_chunk(store: Store, site: Site) -> None:
    """The same bytes under another tag, as some mirrors have it."""
    site.etag, site.cuts = '"one"', [CHUNK_BYTES + 5]

    class Changing(list[dict[str, str]]):
        def append(self, item: dict[str, str]) -> None:
            site.etag = f'"{len(self)}"'
            super().append(item)

    site.headers = Changing()
    fetch(store, BLOB, site.url + "/w")
    asked = [r for _, r in site.requests[1:]]
    assert all(r is not None and int(r[6:].split("-")[0]) >= CHUNK_BYTES for r in asked)


def test_length_that_nobody_told(store: Store, site: Site) -> None:
    site.length = False
    fetch(store, BLOB, site.url + "/w")


def test_length_that_nobody_told_and_more_than_the_blob_has(store: Store, site: Site) -> None:
    site.length = False
    site.files["/w"] = DATA + b"more"
    fetch(store, BLOB, site.url + "/w")


def test_a_chunk_that_came_wrong_once_costs_one_chunk(store: Store, site: Site) -> None:
    site.rots = [CHUNK_BYTES + 7]
    watcher = fetch(store, BLOB, site.url + "/w")
    assert site.sent == len(DATA) + CHUNK_BYTES
    assert site.requests[1:] == [("/w", f"bytes={CHUNK_BYTES}-{2 * CHUNK_BYTES - 1}")]
    assert sum(watcher.moved) == len(DATA)
    assert not [said for said in watcher.said if "next source" in said]


@pytest.mark.parametrize(
    "told",
    ["", "bytes", "bytes 0-5", f"bytes {'9' * 5000}-1/1", "bytes \u00b2-3/4", "bytes 5-4/*"],
)
def test_odd_range(store: Store, site: Site, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RETRIES", 2)
    site.statuses = [(206, {"Content-Range": told})] * 3
    with pytest.raises(IntegrityError, match="another range"):
        fetch(store, BLOB, site.url + "/w")


def test_odd_tag(store: Store, site: Site) -> None:
    site.etag, site.cuts = '"\u00e9"', [5]
    fetch(store, BLOB, site.url + "/w")
    assert [h.get("if-range") for h in site.headers] == [None, None]


def test_what_is_said_of_each_attempt(store: Store, site: Site) -> None:
    site.statuses = [503]
    watcher = fetch(store, BLOB, site.url + "/w")
    assert watcher.said[:2] == ["answers 503 Service Unavailable; trying again", ""]


@pytest.mark.parametrize(
    ("fault", "told", "kind"),
    [
        ("reset", "reset by peer", NetworkError),
        ("truncated", "closed", NetworkError),
        ("stall", "nothing came for", NetworkError),
        ("trickle", "bytes per second came", NetworkError),
        ("silent", "disconnected", NetworkError),
        ("garbage", "status line", NetworkError),
        ("wrong content", "wrong digest", IntegrityError),
        ("wrong size", "are expected", IntegrityError),
        ("compressed", "compressed", NetworkError),
        ("redirect", "redirects more than", NetworkError),
        ("416", "answers 416", NetworkError),
        ("404", "answers 404", NotFoundError),
        ("500", "answers 500", NetworkError),
    ],
)
def test_nothing_but(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    told: str,
    kind: type[Exception],
) -> None:
    """A server that has one fault and always has it: the message names that fault."""
    for name, value in {
        "STALL_SECONDS": 0.3,
        "POLL_SECONDS": 0.05,
        "RETRIES": 2,
        "DIRECT_BYTES": 1000,
        "WRONG_CHUNKS": 1,
    }.items():
        monkeypatch.setattr(limits, name, value)
    data = random.Random(11).randbytes(30_000)
    server = Misbehaving({"/w": data}, seed=1, share=1.0, faults=(fault,))
    with misbehave(server), pytest.raises(kind, match=told):
        fetch(store, Blob.of_bytes("w", data), server.url + "/w")


@pytest.mark.parametrize(
    "fault", ["no length", "chunked", "no ranges", "changed tag", "weak tag", "less than asked"]
)
def test_no_harm_in(store: Store, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(limits, "DIRECT_BYTES", 1000)
    server = Misbehaving({"/w": DATA}, seed=1, share=1.0, faults=(fault,))
    with misbehave(server):
        fetch(store, BLOB, server.url + "/w")


@pytest.mark.parametrize("place", ["{}-9/10", "0-{}/10", "0-9/{}"])
def test_a_range_with_numbers_that_nobody_can_count(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(limits, "RETRIES", 2)
    told = {"Content-Range": "bytes " + place.format("9" * 5000)}
    site.statuses = [(206, told)] * 4
    with pytest.raises(IntegrityError, match="another range than was asked for"):
        fetch(store, BLOB, site.url + "/w")


class TestRetryAfter:
    """How long a server asks to wait."""

    def test_seconds(self) -> None:
        assert retry_after({"retry-after": "7"}) == 7.0
        assert retry_after({"retry-after": " 0 "}) == 0.0
        assert retry_after({"retry-after": "9" * 40}) == 999999999.0

    @pytest.mark.parametrize(
        "text", ["", "soon", "-1", "1.5", "\u00b2", "Tue, 99 Foo 2026 07:00:00 GMT"]
    )
    def test_none(self, text: str) -> None:
        assert retry_after({"retry-after": text}) is None
        assert retry_after({}) is None

    def test_date_by_the_servers_clock(self) -> None:
        """Theirs is an hour behind ours; the wait is what they mean."""
        theirs = datetime.now(timezone.utc) - timedelta(hours=1)
        headers = {
            "date": format_datetime(theirs, usegmt=True),
            "retry-after": format_datetime(theirs + timedelta(seconds=20), usegmt=True),
        }
        assert retry_after(headers) == 20.0

    def test_date_that_is_past(self) -> None:
        assert retry_after({"retry-after": "Tue, 24 Nov 2020 07:00:00 GMT"}) == 0.0


class _Clock(threading.Event):
    """An event that remembers how long it was waited for, and never waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return self.is_set()


class TestPatience:
    """How long, and how often."""

    @pytest.fixture(autouse=True)
    def _patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "BACKOFF_SECONDS", 0.5)

    def test_pauses_grow_at_random(self) -> None:
        clock, said = _Clock(), []
        patience = Patience(lambda: 0, said.append, clock)
        for _ in range(limits.RETRIES - 1):
            patience.after(AgainError("no luck"))
        for pause, most in zip(clock.waits, (0.5, 1, 2, 4), strict=True):
            assert most / 2 <= pause <= most
        assert said[0] == "no luck; trying again"
        with pytest.raises(NetworkError, match=r"no luck \(5 attempts without progress\)"):
            patience.after(AgainError("no luck"))

    def test_pauses_have_a_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "RETRIES", 40)
        clock = _Clock()
        patience = Patience(lambda: 0, lambda _: None, clock)
        for _ in range(39):
            patience.after(AgainError("no luck"))
        assert max(clock.waits) <= limits.MAX_BACKOFF_SECONDS

    def test_the_server_may_ask_for_more_up_to_a_bound(self) -> None:
        clock, said = _Clock(), []
        patience = Patience(lambda: 0, said.append, clock)
        patience.after(AgainError("answers 429", wait=20.0))
        patience.after(AgainError("answers 429", wait=1e9))
        assert clock.waits == [20.0, limits.MAX_WAIT_SECONDS]
        assert said[0] == "answers 429; trying again in 20 s"

    def test_progress_renews_it(self) -> None:
        verified = [0]
        patience = Patience(lambda: verified[0], lambda _: None, _Clock())
        for _ in range(20):
            verified[0] += 1
            patience.after(AgainError("no luck"))
        for _ in range(20):
            patience.after(AgainError("no luck"), progress=True)

    def test_it_ends_when_the_command_does(self) -> None:
        clock = _Clock()
        clock.set()
        with pytest.raises(StoppedError):
            Patience(lambda: 0, lambda _: None, clock).after(AgainError("no luck"))


def test_headers_that_drip(store: Store, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes soon enough for every timeout between two bytes."""
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(limits, "BACKOFF_SECONDS", 0.01)
    began = time.monotonic()
    with dripping() as url, pytest.raises(NetworkError, match="no whole answer within 0 s"):
        fetch(store, BLOB, url)
    assert time.monotonic() - began < 20
    with dripping() as url:
        fetch(store, BLOB, url, site.url + "/w")
    assert site.sent == len(DATA)


@contextlib.contextmanager
def dripping() -> Iterator[str]:
    """A server that begins to answer, and goes on with it for ever."""
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not over.wait(0.02):
                connection.sendall(b"x")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/w"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
