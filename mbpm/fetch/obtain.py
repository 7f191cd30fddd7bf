"""Bringing blobs into the store: several at a time, each from the first source that has it."""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mbpm.fetch import limits, parts
from mbpm.fetch.assembly import LostError, Part, open_part
from mbpm.fetch.failures import all_failed, called, together
from mbpm.fetch.files import from_file
from mbpm.fetch.here import check_offline
from mbpm.fetch.job import Job, Round
from mbpm.fetch.wanted import AnySource, PieceSource, Wanted
from mbpm.files import check_space
from specs.blobs import FileSource, HubSource, SdistSource, UrlSource, WheelSource
from specs.errors import DoesNotFitError, IntegrityError, MbpmError, UsageError

if TYPE_CHECKING:
    from mbpm.fetch.network import Network
    from mbpm.output import Output, Progress
    from mbpm.store import Store


def obtain_all(store: Store, wanted: Sequence[Wanted], network: Network, out: Output) -> None:
    """Bring blobs into the store.

    Chunks that were verified once are kept, whichever source they came from and however the
    attempt ended; the next attempt, of this process or another, fetches only the others.

    Raises:
        DoesNotFitError: the disk is too small, found out before or while writing.
        IntegrityError, AuthError, NetworkError, NotFoundError: all sources of a blob failed; the
            message lists each with its reason. Without a network it names everything that is not
            here, before anything is done.
    """
    items = list({w.blob.sha256: w for w in wanted if not store.has(w.blob)}.values())
    if not items:
        return
    _check_space(store, items)
    if network.offline:
        check_offline(store, items)
        items = [w for w in items if not store.has(w.blob)]
    totals: dict[str, int] = {}
    for item in items:
        totals[item.title] = totals.get(item.title, 0) + item.blob.size
    shared = Round(network, store.parts)
    with out.transfers(totals) as transfers:

        def work(item: Wanted) -> None:
            with transfers.file(item.title, item.what, item.blob.size) as progress:
                _obtain(store, item, shared, progress, out.warn)

        _in_parallel(items, work, shared.stopped, every=network.offline)
    parts.clear(store.parts, _left_behind(store, items))


def salvage(store: Store, sha256: str) -> None:
    """Turn a stored blob known to be damaged into a part file, so that its good chunks stay."""
    file = store.blob_path(sha256)
    if not file.is_file():
        return
    store.parts.mkdir(parents=True, exist_ok=True)
    part = parts.free_part(store.parts, sha256)
    # a copy: the installed folder may be a hard link to the very file
    shutil.copyfile(file, part)
    store.drop("blob", sha256)


def _check_space(store: Store, items: Sequence[Wanted]) -> None:
    """Refuse what the disk cannot hold beside what is on it already."""
    needed = 0
    for item in items:
        begun = sum(parts.on_disk(p) for p in store.parts.glob(f"{item.blob.sha256}.*.part"))
        needed += max(0, item.blob.size - begun)
        if isinstance(item.sources[0] if item.sources else None, (WheelSource, SdistSource)):
            # the wheel is there until the blob is done
            needed += item.blob.size
    what = items[0].what if len(items) == 1 else f"what is to be fetched ({len(items)} files)"
    check_space(store.root, needed, what)


def _left_behind(store: Store, items: Sequence[Wanted]) -> list[str]:
    """The keys of the part files that blobs which are here now need no longer."""
    keys = [item.blob.sha256 for item in items]
    for item in items:
        for source in item.sources:
            if isinstance(source, (WheelSource, SdistSource)):
                wheels = (parts.archive_path(store.parts, source.kind, m) for m in source.parts)
                keys.extend(wheel.name for wheel in wheels)
    return keys


def _in_parallel(
    items: Sequence[Wanted],
    work: Callable[[Wanted], None],
    stopped: threading.Event,
    *,
    every: bool,
) -> None:
    """Do all items, a few at a time; the first failure stops the others, unless `every` counts."""
    waiting, done = queue.SimpleQueue[Wanted](), queue.SimpleQueue[BaseException | None]()
    for item in items:
        waiting.put(item)

    def serve() -> None:
        while not stopped.is_set():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                work(item)
            except BaseException as error:
                done.put(error)
            else:
                done.put(None)

    threads = [
        threading.Thread(target=serve, daemon=True)
        for _ in range(min(limits.TRANSFERS, len(items)))
    ]
    failures: list[BaseException] = []
    try:
        for thread in threads:
            thread.start()
        for _ in items:
            error = _next(done)
            if error is not None:
                failures.append(error)
                if not every or not isinstance(error, MbpmError):
                    break
    finally:
        stopped.set()
        # their part files are to be given up before we leave
        end = time.monotonic() + limits.LEAVE_SECONDS
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))
    if failures:
        raise together(failures)


def _next(done: queue.SimpleQueue[BaseException | None]) -> BaseException | None:
    while True:
        # a wait without an end cannot be interrupted everywhere
        with contextlib.suppress(queue.Empty):
            return done.get(timeout=limits.POLL_SECONDS)


def _obtain(
    store: Store, item: Wanted, shared: Round, progress: Progress, report: Callable[[str], None]
) -> None:
    for _ in range(limits.RETRIES):
        with open_part(store.parts, item.blob, progress) as part:
            try:
                if part.missing():
                    _from_sources(part, item, shared, progress, report)
                part.finish(store, item.what)
                return
            except LostError:
                # somebody took it for an orphan's: what it held counts no more
                progress.advance(-sum(part.length(i) for i in part.kept()))
            except IntegrityError:
                if not part.missing():
                    # no bytes can ever satisfy both digests
                    parts.discard(part.path)
                raise
        if store.has(item.blob):
            return
    raise MbpmError(f"{item.what}: other processes keep taking its unfinished download over")


def _from_sources(
    part: Part, item: Wanted, shared: Round, progress: Progress, report: Callable[[str], None]
) -> None:
    failures: list[tuple[AnySource, MbpmError]] = []
    for number, source in enumerate(item.sources, 1):
        job = Job(shared, part, f"{item.what} from {called(source)}", item.folder, progress)
        try:
            _from_source(source, job)
        except (DoesNotFitError, UsageError):
            # the same would happen to the next one
            raise
        except MbpmError as error:
            failures.append((source, error))
            if number < len(item.sources):
                report(f"{called(source)}: {error.message}; trying the next source")
        finally:
            progress.status("")
        if not part.missing():
            return
    raise all_failed(item.what, failures, offline=shared.network.offline)


def _from_source(source: AnySource, job: Job) -> None:
    if isinstance(source, FileSource):
        start = source.offset if isinstance(source, PieceSource) else 0
        from_file(job.folder / source.path, job, start)
    elif isinstance(source, HubSource):
        from mbpm.fetch.hub import from_hub

        from_hub(source, job)
    elif isinstance(source, UrlSource):
        job.network.insist()
        from mbpm.fetch.ranges import from_url

        from_url(source.url, job)
    else:
        from mbpm.fetch.wheel import from_wheel

        from_wheel(source, job)
