"""Proxies and certificates, each way of naming them."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from mbpm.fetch import client, limits
from mbpm.fetch.proxies import proxy_for
from mbpm.store import Store
from specs.blobs import Blob
from specs.errors import AuthError, NetworkError, UsageError
from tests.support.fetching import fetch
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


class TestProxies:
    """Every way to name one, and every way to name an exception."""

    @pytest.mark.parametrize(
        ("variable", "url", "used"),
        [
            ("HTTP_PROXY", "http://a.test/x", True),
            ("http_proxy", "http://a.test/x", True),
            ("HTTP_PROXY", "https://a.test/x", False),
            ("HTTPS_PROXY", "https://a.test/x", True),
            ("https_proxy", "https://a.test/x", True),
            ("HTTPS_PROXY", "http://a.test/x", False),
            ("ALL_PROXY", "http://a.test/x", True),
            ("all_proxy", "https://a.test/x", True),
        ],
    )
    def test_variable(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, url: str, used: bool
    ) -> None:
        monkeypatch.setenv(variable, "http://proxy.test:3128")
        assert proxy_for(url) == ("http://proxy.test:3128" if used else None)

    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("proxy.test:3128", "http://proxy.test:3128"),
            ("http://user:pass@proxy.test:3128", "http://user:pass@proxy.test:3128"),
            ("https://proxy.test", "https://proxy.test"),
            ("socks5://proxy.test:1080", "socks5://proxy.test:1080"),
            ("", None),
        ],
    )
    def test_form(self, monkeypatch: pytest.MonkeyPatch, written: str, meant: str | None) -> None:
        monkeypatch.setenv("HTTP_PROXY", written)
        assert proxy_for("http://a.test/x") == meant

    def test_the_one_for_the_scheme_wins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALL_PROXY", "http://all.test")
        monkeypatch.setenv("HTTPS_PROXY", "http://secure.test")
        assert proxy_for("https://a.test/") == "http://secure.test"
        assert proxy_for("http://a.test/") == "http://all.test"

    @pytest.mark.parametrize(
        ("entry", "url", "direct"),
        [
            ("*", "http://a.test/", True),
            ("a.test", "http://a.test/", True),
            ("A.Test", "http://a.test/", True),
            ("a.test", "http://b.a.test/", True),
            (".a.test", "http://b.a.test/", True),
            ("*.a.test", "http://b.a.test/", True),
            ("a.test", "http://nota.test/", False),
            ("b.test, a.test", "http://a.test/", True),
            ("a.test:8080", "http://a.test:8080/", True),
            ("a.test:8080", "http://a.test/", False),
            ("a.test:443", "https://a.test/", True),
            ("127.0.0.1", "http://127.0.0.1:5000/", True),
            ("10.0.0.0/8", "http://10.1.2.3/", True),
            ("10.0.0.0/8", "http://11.1.2.3/", False),
            ("::1", "http://[::1]:80/", True),
            ("[::1]:80", "http://[::1]/", True),
            ("fd00::/8", "http://[fd00::5]/", True),
            ("", "http://a.test/", False),
            (" , ", "http://a.test/", False),
        ],
    )
    def test_exception(
        self, monkeypatch: pytest.MonkeyPatch, entry: str, url: str, direct: bool
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", "http://proxy.test")
        monkeypatch.setenv("NO_PROXY", entry)
        assert (proxy_for(url) is None) == direct

    def test_plain_address_through_it(
        self, store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", site.url.replace("//", "//user:secret@"))
        site.files["http://nowhere.test/w"] = DATA
        fetch(store, BLOB, "http://nowhere.test/w")
        assert site.requests == [("http://nowhere.test/w", None)]
        assert site.headers[0]["proxy-authorization"].startswith("Basic ")

    def test_tunnel_through_it(
        self,
        store: Store,
        site: Site,
        secure: Site,
        authority: trustme.CA,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("MBPM_CERT", str(tmp_path / "ca.pem"))
        monkeypatch.setenv("HTTPS_PROXY", site.url)
        site.tunnel = int(secure.url.rpartition(":")[2])
        fetch(store, BLOB, "https://secure.test/w")
        assert site.requests == [("secure.test:443", None)]
        assert secure.requests == [("/w", None)]

    @pytest.mark.parametrize("url", ["http://nowhere.test/w", "https://nowhere.test/w"])
    def test_it_wants_a_password(
        self, store: Store, site: Site, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", site.url)
        site.statuses = [407]
        with pytest.raises(AuthError, match=r"407|password"):
            fetch(store, BLOB, url)

    def test_it_is_not_there(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{port}")
        with pytest.raises(NetworkError, match="refused"):
            fetch(store, BLOB, "http://nowhere.test/w")

    @pytest.mark.parametrize("proxy", ["ftp://proxy.test", "http://[::1"])
    def test_it_is_none(self, store: Store, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        with pytest.raises(UsageError, match="proxy"):
            fetch(store, BLOB, "http://nowhere.test/w")

    def test_its_package_is_missing(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(**_: object) -> None:
            raise ImportError("socksio")

        monkeypatch.setenv("HTTP_PROXY", "socks5://user:secret@proxy.test")
        monkeypatch.setattr(client.httpx, "Client", missing)
        with pytest.raises(UsageError, match="socks5://user:") as caught:
            fetch(store, BLOB, "http://nowhere.test/w")
        assert "secret" not in caught.value.message
        assert "httpx[socks]" in (caught.value.hint or "")


class TestCertificates:
    """Who is believed to be who."""

    def test_unknown_authority(self, store: Store, secure: Site) -> None:
        with pytest.raises(NetworkError, match="not trusted") as caught:
            fetch(store, BLOB, secure.url + "/w")
        assert "MBPM_CERT" in (caught.value.hint or "")
        assert secure.requests == []

    @pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "MBPM_CERT"])
    def test_file(
        self,
        store: Store,
        secure: Site,
        authority: trustme.CA,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        variable: str,
    ) -> None:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
        fetch(store, BLOB, secure.url + "/w")

    def test_folder(
        self,
        store: Store,
        secure: Site,
        authority: trustme.CA,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (tmp_path / "certs").mkdir()
        authority.cert_pem.write_to_path(tmp_path / "certs" / "company.crt")
        monkeypatch.setenv("MBPM_CERT", str(tmp_path / "certs"))
        fetch(store, BLOB, secure.url + "/w")

    @pytest.mark.parametrize("variable", CERTIFICATES)
    def test_file_that_is_not_there(
        self,
        store: Store,
        secure: Site,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        variable: str,
    ) -> None:
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))
        with pytest.raises(UsageError, match=variable):
            fetch(store, BLOB, secure.url + "/w")

    def test_file_that_is_none(
        self, store: Store, secure: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "ca.pem").write_text("hello")
        monkeypatch.setenv("MBPM_CERT", str(tmp_path / "ca.pem"))
        with pytest.raises(UsageError, match="PEM"):
            fetch(store, BLOB, secure.url + "/w")

    def test_large_file_over_tls(
        self,
        store: Store,
        secure: Site,
        authority: trustme.CA,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Read from the connection itself, under TLS too."""
        monkeypatch.setattr(limits, "DIRECT_BYTES", 1000)
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        data = random.Random(9).randbytes(9_000_000)
        secure.files["/large"] = data
        fetch(store, Blob.of_bytes("large", data), secure.url + "/large")
