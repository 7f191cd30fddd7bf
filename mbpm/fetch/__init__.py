"""Obtaining blobs: any source that yields the right bytes will do (docs/transfer.md)."""

from mbpm.fetch.obtain import obtain_all, salvage
from mbpm.fetch.wanted import AnySource, Wanted

__all__ = ["AnySource", "Wanted", "obtain_all", "salvage"]
