"""The way to a server: redirects, credentials, documents, limits; and no way at all."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trustme

from mbpm.fetch import obtain_all, rate
from mbpm.fetch.network import Network, shown
from mbpm.fetch.rate import parse_rate
from mbpm.store import Store
from specs.blobs import Blob, FileSource
from specs.errors import AuthError, NetworkError, NotFoundError, UsageError
from tests.support.fetching import Watcher, fetch, wanted
from tests.support.servers import Site, serve

DATA = random.Random(8).randbytes(50_000)
BLOB = Blob.of_bytes("weights.gguf", DATA)
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "MBPM_CERT")


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *CERTIFICATES, "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", tmp_path / "staging")


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(files={"/w": DATA, "/page": b"hello"})) as site:
        yield site


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost", "secure.test").configure_cert(context)
    with serve(Site(files={"/w": DATA, "/page": b"hello"}), context) as site:
        yield site


def tokens(site: Site) -> Network:
    """A network that has a token for one server."""

    def authorize(url: str) -> Mapping[str, str]:
        return {"Authorization": "Bearer secret"} if url.startswith(site.url) else {}

    return Network(authorize=authorize)


class TestRedirects:
    """Where they lead, and what they must not carry along."""

    def test_credentials_stay_with_their_server(self, store: Store, site: Site) -> None:
        with serve(Site(files={"/far": DATA})) as other:
            site.redirects["/moved"] = other.url + "/far"
            fetch(store, BLOB, site.url + "/moved", network=tokens(site))
            assert site.headers[0]["authorization"] == "Bearer secret"
            assert "authorization" not in other.headers[0]

    def test_credentials_in_the_address_stay_too(self, store: Store, site: Site) -> None:
        with serve(Site(files={"/far": DATA})) as other:
            site.redirects["/moved"] = other.url + "/far"
            fetch(store, BLOB, site.url.replace("//", "//me:secret@") + "/moved")
            assert site.headers[0]["authorization"].startswith("Basic ")
            assert "authorization" not in other.headers[0]

    def test_within_a_server_they_go_along(self, store: Store, site: Site) -> None:
        site.redirects["/moved"] = "/w"
        fetch(store, BLOB, site.url + "/moved", network=tokens(site))
        assert [h["authorization"] for h in site.headers] == ["Bearer secret"] * 2

    def test_round_and_round(self, store: Store, site: Site) -> None:
        site.redirects["/moved"] = "/moved"
        with pytest.raises(NetworkError, match="redirects more than 10 times"):
            fetch(store, BLOB, site.url + "/moved")

    def test_from_secure_to_plain(
        self,
        store: Store,
        site: Site,
        secure: Site,
        authority: trustme.CA,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        secure.redirects["/moved"] = site.url + "/w"
        with pytest.raises(NetworkError, match="redirects from https"):
            fetch(store, BLOB, secure.url + "/moved")
        assert site.requests == []

    @pytest.mark.parametrize("target", ["file:///etc/passwd", "http://[", "gopher://x/"])
    def test_to_something_odd(self, store: Store, site: Site, target: str) -> None:
        site.redirects["/moved"] = target
        with pytest.raises(NetworkError, match="not an address"):
            fetch(store, BLOB, site.url + "/moved")


class TestDocuments:
    """`Network.get`."""

    def test_bytes_and_what_is_told_of_them(self, site: Site) -> None:
        site.etag, site.modified = '"one"', "Tue, 24 Nov 2026 07:00:00 GMT"
        site.redirects["/moved"] = "/page"
        found = Network().get(site.url + "/moved", limit=5, accept="text/plain")
        assert (found.data, found.etag, found.modified) == (b"hello", site.etag, site.modified)
        assert found.url == site.url + "/page"
        assert site.headers[-1]["accept"] == "text/plain"
        assert site.headers[-1]["user-agent"].startswith("mbpm/")

    def test_unchanged(self, site: Site) -> None:
        site.etag, site.modified = '"one"', "Tue, 24 Nov 2026 07:00:00 GMT"
        network = Network()
        found = network.get(site.url + "/page", limit=5, etag='"one"')
        assert (found.data, found.etag) == (None, '"one"')
        assert network.get(site.url + "/page", limit=5, etag='"two"').data == b"hello"
        site.etag = None
        assert network.get(site.url + "/page", limit=5, modified=site.modified).data is None

    def test_a_tag_that_cannot_be_sent_back_is_none(self, site: Site) -> None:
        site.etag, site.modified = '"\u00e9"', "24 f\u00e9vrier 2026"
        found = Network().get(site.url + "/page", limit=5)
        assert (found.data, found.etag, found.modified) == (b"hello", None, None)

    def test_longer_than_accepted(self, site: Site) -> None:
        with pytest.raises(NetworkError, match="more than the 4 bytes"):
            Network().get(site.url + "/page", limit=4)

    def test_patience(self, site: Site) -> None:
        site.statuses = [500, (429, {"Retry-After": "0"}), 503]
        assert Network().get(site.url + "/page", limit=5).data == b"hello"

    def test_long_waits_are_told(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        site.statuses = [503, (429, {"Retry-After": "9"})]
        monkeypatch.setattr(threading.Event, "wait", lambda *_: False)
        said: list[str] = []
        Network(say=said.append).get(site.url + "/page", limit=5)
        assert said == [f"{site.url}/page: answers 429 Too Many Requests; trying again in 9 s"]

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (401, AuthError),
            (403, AuthError),
            (404, NotFoundError),
            (410, NotFoundError),
            (451, NotFoundError),
            (400, NetworkError),
            (304, NetworkError),
        ],
    )
    def test_refused(self, site: Site, status: int, kind: type[Exception]) -> None:
        site.statuses = [status]
        with pytest.raises(kind, match=f"{site.url}/page: answers {status}"):
            Network().get(site.url + "/page", limit=5)
        assert len(site.requests) == 1

    def test_cut_short(self, site: Site) -> None:
        site.cuts = [2]
        assert Network().get(site.url + "/page", limit=5).data == b"hello"

    def test_passwords_are_not_shown(self, site: Site) -> None:
        site.statuses = [404]
        with pytest.raises(NotFoundError) as caught:
            Network().get(site.url.replace("//", "//me:secret@") + "/page", limit=5)
        assert "secret" not in caught.value.message
        assert shown("https://me:secret@host/a@b") == "https://me:***@host/a@b"
        assert shown("https://host/a:b@c") == "https://host/a:b@c"
        assert shown("file /a:b@c") == "file /a:b@c"


class TestOffline:
    """No socket is made, and what is missing is told at once and completely."""

    @pytest.fixture(autouse=True)
    def _no_sockets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            pytest.fail("a socket was opened")

        monkeypatch.setattr(socket, "socket", refuse)
        monkeypatch.setattr(socket, "create_connection", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)

    def test_document(self) -> None:
        with pytest.raises(NetworkError, match="switched off") as caught:
            Network(offline=True).get("http://127.0.0.1:9/x", limit=5)
        assert "without `--offline`" in (caught.value.hint or "")

    def test_everything_missing_is_named(self, store: Store, tmp_path: Path) -> None:
        here = tmp_path / "here"
        here.write_bytes(DATA)
        absent = [Blob.of_bytes(f"absent{i}", bytes([i])) for i in range(3)]
        items = [wanted(BLOB, FileSource(path=str(here)))]
        items += [wanted(b, f"http://127.0.0.1:9/{b.path}", title="base far") for b in absent]
        watcher = Watcher()
        with pytest.raises(NetworkError) as caught:
            obtain_all(store, items, Network(offline=True), watcher)
        for blob in absent:
            assert f"{blob.path} of base far (1 B): http://127.0.0.1:9/" in caught.value.message
        assert "weights" not in caught.value.message
        assert watcher.files == [], "nothing was begun"
        assert not store.has(BLOB)

    def test_what_is_here_is_taken(self, store: Store, tmp_path: Path) -> None:
        here = tmp_path / "here"
        here.write_bytes(DATA)
        network = Network(offline=True)
        fetch(store, BLOB, "http://127.0.0.1:9/w", FileSource(path=str(here)), network=network)

    def test_all_that_turn_out_damaged_are_named(self, store: Store, tmp_path: Path) -> None:
        items = []
        for number in range(3):
            file = tmp_path / str(number)
            file.write_bytes(b"?")
            blob = Blob.of_bytes(f"f{number}", bytes([number]))
            items.append(wanted(blob, FileSource(path=str(file))))
        with pytest.raises(Exception, match="wrong digest") as caught:
            obtain_all(store, items, Network(offline=True), Watcher())
        for number in range(3):
            assert f"f{number} of base tiny" in str(caught.value)


class TestRate:
    """The speed limit."""

    @pytest.mark.parametrize(
        ("text", "bytes_per_second"),
        [
            ("500k", 500e3),
            ("2M", 2e6),
            ("1.5m", 1.5e6),
            ("1G", 1e9),
            ("800", 800),
            ("2MB", 2e6),
            ("500 kB/s", 500e3),
            (" 3k ", 3e3),
        ],
    )
    def test_written(self, text: str, bytes_per_second: float) -> None:
        assert parse_rate(text).bytes_per_second == bytes_per_second

    @pytest.mark.parametrize("text", ["", "fast", "-1k", "0", "0.5", "k", "1 2", "1x", "nan"])
    def test_written_wrong(self, text: str) -> None:
        with pytest.raises(UsageError, match="is not a rate"):
            Network(limit_rate=text)

    def test_holds_for_all_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [1000.0]
        monkeypatch.setattr(rate.time, "monotonic", lambda: now[0])

        def wait(seconds: float) -> None:
            now[0] += seconds

        limit = parse_rate("100k")
        for _ in range(200):
            limit.take(limit.piece, wait)
        taken = 200 * limit.piece
        assert taken / (now[0] - 1000 + rate.BURST_SECONDS) == pytest.approx(100e3, rel=0.05)

    def test_is_kept_by_downloads(
        self, store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken: list[int] = []
        monkeypatch.setattr(rate.Rate, "take", lambda _, count, wait: taken.append(count))
        network = Network(limit_rate="1M")
        fetch(store, BLOB, site.url + "/w", network=network)
        network.get(site.url + "/page", limit=5)
        assert sum(taken) == len(DATA) + 5

    def test_ends_when_the_command_does(self) -> None:
        stopped = threading.Event()
        stopped.set()
        parse_rate("1").take(1000, stopped.wait)
