"""The one way of a command to any server."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from specs.errors import NetworkError, UsageError

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgG]?)B?(?:/s)?")
_UNITS = {"": 1, "k": 1000, "m": 1000_000, "g": 1000_000_000}


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


@dataclass
class Network:
    """The network as one command sees it."""

    offline: bool = False
    limit_rate: str | None = None
    """Bytes per second of all transfers together, as written: `500k`, `2M`."""
    authorize: Callable[[str], Mapping[str, str]] = _nothing
    """The headers that an address wants: its token, where there is one."""

    def __post_init__(self) -> None:
        self.rate = None if self.limit_rate is None else parse_rate(self.limit_rate)

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
        if self.offline:
            raise NetworkError(
                f"{url}: the network is switched off (`--offline`)",
                hint="run it again without `--offline`",
            )
        from mbpm.fetch.http import document

        return document(self, url, limit, etag, modified, accept)


def parse_rate(text: str) -> float:
    """Bytes per second from `500k`, `2M` or a plain number.

    Raises:
        UsageError: it is none of these, or nothing at all.
    """
    match = _RATE.fullmatch(text.strip())
    value = float(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    if value < 1:
        raise UsageError(
            f"`{text}` is not a rate", hint="give bytes per second, such as `500k` or `2M`"
        )
    return value
