"""Requests: proxies, certificates, redirects, and what an answer means."""

from __future__ import annotations

import contextlib
import platform
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from functools import partial
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from mbpm import __version__
from mbpm.fetch import certificates, limits
from mbpm.fetch.http import httpx
from mbpm.fetch.network import shown
from mbpm.fetch.proxies import proxy_for
from mbpm.fetch.retry import AgainError, explained, retry_after
from specs.errors import AuthError, NetworkError, NotFoundError, UsageError

USER_AGENT = f"mbpm/{__version__} (python {platform.python_version()}; {platform.system().lower()})"


class Client:
    """Connections to any number of servers, kept between requests; safe for several threads."""

    def __init__(
        self, authorize: Callable[[str], Mapping[str, str]], cert: str | None = None
    ) -> None:
        """
        Args:
            authorize: The headers an address wants.
            cert: A file or folder of certificates to trust too.
        """
        self._authorize = authorize
        self._cert = cert
        self._lock = threading.Lock()
        self._clients: dict[tuple[bool, str | None], httpx.Client] = {}
        self._context: ssl.SSLContext | None = None

    @contextlib.contextmanager
    def open(
        self, url: str, headers: Mapping[str, str], private: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """The answer to a GET, after redirects, its body unread.

        Credentials go to the address they are for and to nobody it redirects to.

        Args:
            url: Where to ask.
            headers: Sent to every address on the way.
            private: Headers for the first address's server only.

        Raises:
            AgainError: another attempt may do better.
            NetworkError, AuthError: there is no point in asking again.
        """
        address = url
        for _ in range(limits.MAX_REDIRECTS + 1):
            with explained():
                own = private if private and _origin(address) == _origin(url) else {}
                client = self._client(address)
                request = client.build_request(
                    "GET", address, headers={**headers, **own, **self._authorize(address)}
                )
                response = _answer(partial(client.send, request, stream=True))
            try:
                if not response.has_redirect_location:
                    yield response
                    return
                location = response.headers["location"]
            finally:
                response.close()
            with explained():
                before, address = address, urljoin(address, location)
            if urlsplit(before).scheme == "https" and urlsplit(address).scheme != "https":
                raise NetworkError("redirects from https to an address that is not")
        raise NetworkError(f"redirects more than {limits.MAX_REDIRECTS} times")

    def _client(self, url: str) -> httpx.Client:
        proxy = proxy_for(url)
        secure = urlsplit(url).scheme == "https" or (proxy or "").startswith("https:")
        with self._lock:
            if (secure, proxy) not in self._clients:
                self._clients[secure, proxy] = self._make(secure, proxy)
            return self._clients[secure, proxy]

    def _make(self, secure: bool, proxy: str | None) -> httpx.Client:
        context = self._trusted() if secure else certificates.nobody()
        try:
            return httpx.Client(
                verify=context,
                # the environment was read already, and more closely
                trust_env=False,
                proxy=_proxy(proxy, context),
                timeout=httpx.Timeout(limits.STALL_SECONDS, connect=limits.CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
                headers={"User-Agent": USER_AGENT},
            )
        except ImportError:
            raise UsageError(
                f"the proxy {shown(proxy or '')} needs a package that is not installed",
                hint="`pip install 'httpx[socks]'`",
            ) from None
        except (ValueError, httpx.InvalidURL) as error:
            raise UsageError(f"the proxy {shown(proxy or '')} cannot be used ({error})") from None

    def _trusted(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = certificates.trusted()
            if self._cert:
                certificates.add(self._context, Path(self._cert), "pip's `cert`")
        return self._context


def _answer(send: Callable[[], httpx.Response]) -> httpx.Response:
    """An answer whose headers came within `limits.ANSWER_SECONDS`.

    The timeouts of a connection count from byte to byte: a server that sends one of them now and
    then would hold us for ever.

    Raises:
        AgainError: it took longer. The connection is left alone, and closed if it ever answers.
        Exception: as `send`.
    """
    answer: futures.Future[httpx.Response] = futures.Future()

    def work() -> None:
        try:
            response = send()
        except BaseException as error:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)
            return
        if answer.set_running_or_notify_cancel():
            answer.set_result(response)
        else:
            response.close()

    threading.Thread(target=work, daemon=True, name="mbpm answer").start()
    try:
        return answer.result(limits.ANSWER_SECONDS)
    except futures.TimeoutError:
        if answer.cancel():
            text = f"no whole answer within {limits.ANSWER_SECONDS:.0f} s"
            raise AgainError(text) from None
        return answer.result()


def _proxy(url: str | None, context: ssl.SSLContext) -> httpx.Proxy | None:
    if url is None:
        return None
    # only a proxy that is itself reached through TLS has a certificate to check
    return httpx.Proxy(url, ssl_context=context if url.startswith("https:") else None)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port


def said(response: httpx.Response, header: str) -> str | None:
    """What an answer says in a header; None where it says nothing that could be sent back."""
    text = str(response.headers.get(header, ""))
    return text if text and text.isascii() and text.isprintable() else None


def refuse(response: httpx.Response) -> None:
    """Return for an answer that brings the bytes asked for, or their range.

    Raises:
        AgainError: the server is busy, or has trouble of its own.
        AuthError, NotFoundError, NetworkError: as it answers.
    """
    status = response.status_code
    if status in (200, 206):
        if response.headers.get("content-encoding", "identity") != "identity":
            raise NetworkError("sends the file compressed, though it was asked not to")
        return
    answer = f"answers {status} {response.reason_phrase}".rstrip()
    # how the Hugging Face hub tells what its status does not
    told = response.headers.get("x-error-code", "")
    if told == "GatedRepo":
        raise AuthError("the repository wants an accepted licence and a token")
    if status in (404, 410, 451) or told in ("RepoNotFound", "RevisionNotFound", "EntryNotFound"):
        raise NotFoundError(answer)
    if status in (401, 403, 407):
        raise AuthError(answer)
    if status in (408, 425, 429) or status >= 500:
        raise AgainError(answer, busy=status in (429, 503), wait=retry_after(response.headers))
    raise NetworkError(answer)
