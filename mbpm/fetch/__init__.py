"""Obtaining blobs: any source that yields the right bytes will do (docs/transfer.md)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbpm.fetch.obtain import obtain_all, salvage
    from mbpm.fetch.wanted import AnySource, Wanted

__all__ = ["AnySource", "Wanted", "obtain_all", "salvage"]


def __getattr__(name: str) -> Any:
    # read lazily: `mbpm search` wants the network and obtains no blob
    if name in ("obtain_all", "salvage"):
        from mbpm.fetch import obtain

        return getattr(obtain, name)
    if name in ("AnySource", "Wanted"):
        from mbpm.fetch import wanted

        return getattr(wanted, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
