"""Small documents: index pages and the like, in memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from mbpm.fetch.body import pieces
from mbpm.fetch.client import Client, refuse, said
from mbpm.fetch.http import httpx
from mbpm.fetch.network import Document, TooLongError, shown
from mbpm.fetch.retry import AgainError, Patience
from specs.errors import MbpmError, NetworkError

if TYPE_CHECKING:
    from mbpm.fetch.network import Network


_UNREACHABLE = (
    "`--offline` goes on with what is known already; `mbpm doctor` shows the proxy in use"
)


def get(
    network: Network,
    url: str,
    limit: int,
    etag: str | None = None,
    modified: str | None = None,
    accept: str = "*/*",
    client: Client | None = None,
) -> Document:
    """See `Network.get`; `client` asks for it in the place of the network's own."""
    headers = {"Accept": accept, "Accept-Encoding": "identity"}
    if etag:
        headers["If-None-Match"] = etag
    elif modified:
        headers["If-Modified-Since"] = modified
    never = threading.Event()

    def say(text: str) -> None:
        if text:
            network.say(f"{shown(url)}: {text}")

    patience = Patience(lambda: 0, say, never, quiet_seconds=2.0)
    try:
        client = client or network.client
        while True:
            try:
                with network.slots.hold(url, never), client.open(url, headers) as response:
                    return _read(network, response, limit, etag, modified, never)
            except AgainError as error:
                patience.after(error)
    except MbpmError as error:
        hint = error.hint
        if isinstance(error, NetworkError) and not network.offline:
            hint = hint or _UNREACHABLE
        raise type(error)(f"{shown(url)}: {error.message}", hint=hint) from None


def _read(
    network: Network,
    response: httpx.Response,
    limit: int,
    etag: str | None,
    modified: str | None,
    never: threading.Event,
) -> Document:
    address = str(response.url)
    tag, date = said(response, "etag"), said(response, "last-modified")
    if response.status_code == httpx.codes.NOT_MODIFIED and (etag or modified):
        return Document(None, tag or etag, date or modified, address)
    refuse(response)
    body = bytearray()
    for piece in pieces(response, network.rate, never):
        body += piece
        if len(body) > limit:
            raise TooLongError(f"answers with more than the {limit:,} bytes accepted")
    return Document(bytes(body), tag, date, address)
