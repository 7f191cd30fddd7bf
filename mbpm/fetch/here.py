"""What can be had without a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mbpm.fetch.assembly import open_part
from mbpm.fetch.failures import called
from mbpm.fetch.wanted import AnySource, Wanted
from mbpm.output import Silent, size
from specs.blobs import FileSource, HubSource, SdistSource, WheelSource
from specs.errors import MbpmError, NetworkError

if TYPE_CHECKING:
    from mbpm.store import Store


def check_offline(store: Store, items: Sequence[Wanted]) -> None:
    """Return if everything is on this machine; a download that lacks nothing is finished.

    Raises:
        NetworkError: names all that is not.
    """
    missing = [item for item in items if not _is_here(store, item)]
    if not missing:
        return
    lines = []
    for item in missing:
        sources = ", ".join(called(source) for source in item.sources) or "no source is named"
        lines.append(f"\n  {item.what} ({size(item.blob.size)}): {sources}")
    raise NetworkError(
        "the network is switched off (`--offline`), and not on this machine are:" + "".join(lines),
        hint="run it again without `--offline`",
    )


def _is_here(store: Store, item: Wanted) -> bool:
    if any(_is_local(source, store, item) for source in item.sources):
        return True
    with open_part(store.parts, item.blob, Silent()) as part:
        if part.missing():
            return False
        part.finish(store, item.what)
    return True


def _is_local(source: AnySource, store: Store, item: Wanted) -> bool:
    if isinstance(source, FileSource):
        return (item.folder / source.path).is_file()
    if isinstance(source, HubSource):
        from mbpm.fetch.hub import cached

        return cached(source) is not None
    if isinstance(source, (WheelSource, SdistSource)):
        from mbpm.fetch.wheel import kept

        return kept(source, store.parts) or _in_folders(source, store)
    return False


def _in_folders(source: WheelSource | SdistSource, store: Store) -> bool:
    from mbpm.fetch.pip import find_local, read_config

    try:
        config = read_config(store.parts)
    except MbpmError:
        return False
    return all(find_local(member, config, source.kind) for member in source.parts)
