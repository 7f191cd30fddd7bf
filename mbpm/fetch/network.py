"""The one way of a command to any server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mbpm.fetch import limits
from mbpm.fetch.rate import Rate, parse_rate
from specs.errors import NetworkError

if TYPE_CHECKING:
    from mbpm.fetch.client import Client


class TooLongError(NetworkError):
    """A document has more bytes than are accepted of it."""


@dataclass(frozen=True)
class Document:
    """A small document as a server sent it."""

    data: bytes | None
    """None where it is the one that was known already (304)."""
    etag: str | None
    modified: str | None
    """Its `Last-Modified`, as written."""
    url: str
    """Where it came from in the end."""


def _nothing(url: str) -> Mapping[str, str]:
    return {}


def _silent(text: str) -> None:
    """Nobody listens."""


@dataclass
class Network:
    """The network as one command sees it; safe for several threads."""

    offline: bool = False
    limit_rate: str | None = None
    """Bytes per second of all transfers together, as written: `500k`, `2M`."""
    authorize: Callable[[str], Mapping[str, str]] = _nothing
    """The headers that an address wants: its token, where there is one."""
    say: Callable[[str], None] = _silent
    """Told when a server lets `get` wait for long; downloads say so beside their progress."""
    slots: Slots = field(init=False, repr=False)
    rate: Rate | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Read the limit; UsageError where it is none."""
        self.rate = None if self.limit_rate is None else parse_rate(self.limit_rate)
        self.slots = Slots()
        self._lock = threading.Lock()

    @cached_property
    def client(self) -> Client:
        """The connections; made when first needed.

        Raises:
            NetworkError: the network is switched off.
        """
        self.insist()
        from mbpm.fetch.client import Client

        return Client(self.authorize)

    def insist(self) -> None:
        """Return where the network may be used; NetworkError where it is switched off."""
        if self.offline:
            raise NetworkError(
                "the network is switched off (`--offline`)",
                hint="run it again without `--offline`",
            )

    def get(
        self,
        url: str,
        *,
        limit: int,
        etag: str | None = None,
        modified: str | None = None,
        accept: str = "*/*",
    ) -> Document:
        """Fetch a small document, or learn that it has not changed.

        Args:
            url: Where it is.
            limit: Most bytes accepted.
            etag: The entity tag of the copy that is here.
            modified: The `Last-Modified` of that copy, for servers without entity tags.
            accept: The kinds of document that will do.

        Raises:
            NetworkError: it cannot be had, or is larger than `limit`.
            AuthError, NotFoundError: as the server answers.
        """
        from mbpm.fetch.documents import get

        return get(self, url, limit, etag, modified, accept)


def shown(url: str) -> str:
    """An address as it may be printed: without a password."""
    head, at, tail = url.partition("@")
    scheme, mark, login = head.partition("://")
    if not (at and mark) or "/" in login or ":" not in login:
        return url
    return f"{scheme}://{login.partition(':')[0]}:***@{tail}"


class Slots:
    """Bounds the connections to each host."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._used: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()

    @contextmanager
    def hold(self, url: str, stopped: threading.Event) -> Iterator[None]:
        """One connection to the host of `url`, waiting for it while others have them all."""
        host = _host(url)
        with self._changed:
            self._waiting[host] += 1
            try:
                while self._used[host] >= limits.CONNECTIONS and not stopped.is_set():
                    self._changed.wait(limits.POLL_SECONDS)
            finally:
                self._waiting[host] -= 1
            self._used[host] += 1
        try:
            yield
        finally:
            self.give(url)

    def take(self, url: str) -> bool:
        """One connection more, if one is free and nobody waits for it; `give` it back."""
        host = _host(url)
        with self._changed:
            if self._used[host] >= limits.CONNECTIONS or self._waiting[host]:
                return False
            self._used[host] += 1
            return True

    def give(self, url: str) -> None:
        """Let somebody else have a connection."""
        with self._changed:
            self._used[_host(url)] -= 1
            self._changed.notify_all()

    def wanted(self, url: str) -> bool:
        """Whether somebody waits for a connection to the host of `url`."""
        return self._waiting[_host(url)] > 0


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        # whoever asks there is told what is wrong with it
        return url
