"""Fetching blobs in tests, and watching it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mbpm.fetch import AnySource, Wanted, obtain_all
from mbpm.fetch.network import Network
from mbpm.output import Output
from mbpm.store import Store
from specs.blobs import Blob, UrlSource


class Watcher(Output):
    """An output that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: list[int] = []
        self.said: list[str] = []
        self.files: list[str] = []

    def warn(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def transfers(self, totals: Mapping[str, int]) -> Iterator[Watcher]:
        yield self

    @contextmanager
    def file(self, title: str, what: str, total: int) -> Iterator[Watcher]:
        self.files.append(what)
        yield self

    def advance(self, count: int) -> None:
        self.moved.append(count)

    def status(self, text: str) -> None:
        self.said.append(text)


def wanted(blob: Blob, *sources: AnySource | str, title: str = "base tiny") -> Wanted:
    """A blob and its sources; a plain text is an address."""
    found = [UrlSource(url=s) if isinstance(s, str) else s for s in sources]
    return Wanted(blob, found, f"{blob.path} of {title}", title)


def fetch(
    store: Store, blob: Blob, *sources: AnySource | str, network: Network | None = None
) -> Watcher:
    """Fetch one blob; it is in the store then, and nothing else is left."""
    watcher = Watcher()
    obtain_all(store, [wanted(blob, *sources)], network or Network(), watcher)
    assert Blob.of_file(store.blob_path(blob.sha256), blob.path) == blob
    assert list(store.parts.iterdir()) == []
    return watcher


def within(seconds: float, work: threading.Thread) -> None:
    """Start a thread that has so long to end: what hangs fails."""
    work.daemon = True
    work.start()
    work.join(seconds)
    assert not work.is_alive(), f"still at it after {seconds} s"
