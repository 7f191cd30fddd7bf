"""Downloads that outlive the process, the machine and each other."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbpm import processes
from mbpm.fetch import assembly, obtain_all, parts, salvage
from mbpm.fetch.assembly import Part
from mbpm.fetch.network import Network
from mbpm.output import Silent
from mbpm.store import Store
from specs.blobs import CHUNK_BYTES, Blob, FileSource
from specs.errors import IntegrityError, NetworkError
from tests.support.fetching import Watcher, fetch, wanted
from tests.support.servers import Site, serve

DATA = random.Random(6).randbytes(6 * CHUNK_BYTES + 17)
BLOB = Blob.of_bytes("weights.gguf", DATA)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store", tmp_path / "staging")
    store.parts.mkdir(parents=True)
    return store


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(files={"/w": DATA})) as site:
        yield site


def orphan(store: Store, chunks: set[int], *, owner: str = "elsewhere.0", number: int = 0) -> Path:
    """A part file with some chunks, and its marks."""
    path = store.parts / f"{BLOB.sha256}.{owner}.{number:032x}.part"
    with path.open("wb") as stream:
        for index in sorted(chunks):
            stream.seek(index * CHUNK_BYTES)
            stream.write(DATA[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
    marks = "".join("1" if index in chunks else "0" for index in range(7))
    path.with_suffix(".chunks").write_text(marks)
    return path


def asked(site: Site) -> set[int]:
    """The chunks that were asked for."""
    chunks: set[int] = set()
    for _, wanted_range in site.requests:
        start, stop = (
            (0, len(DATA) - 1)
            if wanted_range is None
            else (int(n) for n in wanted_range[6:].split("-"))
        )
        chunks |= set(range(start // CHUNK_BYTES, stop // CHUNK_BYTES + 1))
    return chunks


def test_only_what_is_missing_is_fetched(store: Store, site: Site) -> None:
    orphan(store, {0, 2, 3, 6})
    watcher = fetch(store, BLOB, site.url + "/w")
    assert asked(site) == {1, 4, 5}
    assert site.sent == 3 * CHUNK_BYTES
    assert sum(watcher.moved) == len(DATA)


def test_a_complete_part_needs_no_source(store: Store) -> None:
    orphan(store, set(range(7)))
    fetch(store, BLOB)


def test_marks_that_were_lost_cost_nothing(store: Store, site: Site) -> None:
    orphan(store, {0, 2, 3}).with_suffix(".chunks").unlink()
    fetch(store, BLOB, site.url + "/w")
    assert asked(site) == {1, 4, 5, 6}


def test_marks_that_came_too_late_cost_nothing(store: Store, site: Site) -> None:
    """Killed between writing a chunk and marking it."""
    orphan(store, {0, 1, 2}).with_suffix(".chunks").write_text("1000000")
    fetch(store, BLOB, site.url + "/w")
    assert asked(site) == {3, 4, 5, 6}


def test_marks_that_lie_are_not_believed(store: Store, site: Site) -> None:
    """The machine stopped before the chunk was on the disk."""
    orphan(store, {0}).with_suffix(".chunks").write_text("1110000")
    fetch(store, BLOB, site.url + "/w")
    assert asked(site) == {1, 2, 3, 4, 5, 6}


def test_holes_are_not_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "SEEK_DATA"):
        pytest.skip("this system does not tell where holes are")
    orphan(store, {0, 5})
    looked: list[int] = []
    real = assembly._fill

    def fill(stream: object, buffer: memoryview) -> bool:
        looked.append(len(buffer))
        return real(stream, buffer)

    monkeypatch.setattr(assembly, "_fill", fill)
    with assembly.open_part(store.parts, BLOB, Silent()) as part:
        assert part.kept() == [0, 5]
        assert part.missing() == [1, 2, 3, 4, 6]
    # the whole's digest has read the first one too
    assert len(looked) <= 3


def test_several_orphans_are_put_together(store: Store, site: Site) -> None:
    orphan(store, {0, 1}, number=1)
    orphan(store, {1, 2, 3}, number=2)
    orphan(store, {5}, number=3)
    fetch(store, BLOB, site.url + "/w")
    assert asked(site) == {4, 6}


def dead() -> int:
    """The number of a process that ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_part_of_a_dead_process_is_adopted(store: Store, site: Site) -> None:
    orphan(store, {0}, owner=f"{parts._host()}.{dead()}")
    fetch(store, BLOB, site.url + "/w")
    assert 0 not in asked(site)


def test_a_part_of_a_process_on_another_host_waits_for_its_lease(store: Store) -> None:
    part = orphan(store, {0}, owner=f"faraway.{dead()}")
    assert parts.adopt(store.parts, BLOB.sha256) is None
    old = time.time() - parts.LEASE_SECONDS - 1
    os.utime(part, (old, old))
    assert parts.adopt(store.parts, BLOB.sha256) is not None


def test_a_process_with_the_number_of_a_dead_one_is_no_owner(store: Store) -> None:
    """Containers start counting anew: the dead owner had our number, or our parent's."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("this system does not tell when a process began")
    ours = orphan(store, {0}, owner=f"{parts._host()}.{os.getpid()}")
    assert parts.adopt(store.parts, BLOB.sha256) is not None
    assert not ours.exists()
    (adopted,) = store.parts.glob("*.part")
    adopted.unlink()
    theirs = orphan(store, {0}, owner=f"{parts._host()}.{os.getppid()}")
    assert parts.adopt(store.parts, BLOB.sha256) is None
    before = processes.started(os.getppid()) - 60
    recent = max(before, time.time() - parts.LEASE_SECONDS + 60)
    os.utime(theirs, (recent, recent))
    if recent == before:
        assert parts.adopt(store.parts, BLOB.sha256) is not None


def test_an_owner_gives_signs_of_life(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "BEAT_SECONDS", 0.0)
    with assembly.open_part(store.parts, BLOB, Silent()) as part:
        os.utime(part.path, (0, 0))
        part.beat()
        assert part.path.stat().st_mtime > time.time() - 60


def test_exactly_one_adopts(store: Store) -> None:
    orphan(store, {0})
    won: list[Path] = []
    ready = threading.Barrier(8)

    def race() -> None:
        ready.wait()
        if (path := parts.adopt(store.parts, BLOB.sha256)) is not None:
            won.append(path)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert won[0].with_suffix(".chunks").read_text() == "1000000"


def test_a_part_taken_over_while_it_is_written(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody thought the owner dead; both end well, at the cost of bandwidth."""
    real = Part._mark
    stolen: list[Path] = []

    def mark(self: Part, index: int) -> None:
        if not stolen:
            stolen.append(self.path.rename(parts.free_part(store.parts, "f" * 64)))
        real(self, index)

    monkeypatch.setattr(Part, "_mark", mark)
    watcher = Watcher()
    obtain_all(store, [wanted(BLOB, site.url + "/w")], Network(), watcher)
    assert stolen
    assert Blob.of_file(store.blob_path(BLOB.sha256), BLOB.path) == BLOB
    assert sum(watcher.moved) == len(DATA)


def test_two_at_once_disturb_each_other_in_no_way(store: Store, site: Site) -> None:
    site.pauses = [0.1] * 4
    watchers = [Watcher(), Watcher()]
    threads = [
        threading.Thread(
            target=obtain_all, args=(store, [wanted(BLOB, site.url + "/w")], Network(), watcher)
        )
        for watcher in watchers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Blob.of_file(store.blob_path(BLOB.sha256), BLOB.path) == BLOB
    assert list(store.parts.iterdir()) == []


def test_digests_that_contradict_each_other_do_not_get_into_the_store(
    store: Store, site: Site
) -> None:
    other = Blob.of_bytes("weights.gguf", b"something else")
    lie = BLOB.model_copy(update={"sha256": other.sha256})
    with pytest.raises(IntegrityError, match="every chunk is right and the whole"):
        obtain_all(store, [wanted(lie, site.url + "/w")], Network(), Watcher())
    assert not store.blob_path(other.sha256).exists()
    assert list(store.parts.iterdir()) == [], "no bytes can ever satisfy both"


def test_salvage_fetches_the_bad_chunk_only(store: Store, site: Site) -> None:
    fetch(store, BLOB, site.url + "/w")
    stored = store.blob_path(BLOB.sha256)
    linked = store.root / "link"
    os.link(stored, linked)
    stored.chmod(0o644)
    rotten = bytearray(DATA)
    rotten[2 * CHUNK_BYTES] ^= 1
    stored.write_bytes(rotten)
    site.requests.clear()
    salvage(store, BLOB.sha256)
    assert not stored.exists()
    fetch(store, BLOB, site.url + "/w")
    assert asked(site) == {2}
    assert linked.read_bytes() == rotten, "a folder that links to it is not written to"
    salvage(store, "0" * 64)


def test_a_salvaged_file_that_grew_is_cut(store: Store) -> None:
    stored = store.blob_path(BLOB.sha256)
    stored.parent.mkdir(parents=True)
    stored.write_bytes(DATA + b"more")
    salvage(store, BLOB.sha256)
    fetch(store, BLOB)


def test_unfinished_ones_are_listed(store: Store) -> None:
    orphan(store, {0, 1})
    orphan(store, {0}, owner=f"{parts._host()}.{os.getppid()}", number=9)
    (found,) = parts.unfinished(store.parts)
    assert found.key == BLOB.sha256
    assert found.disk_bytes == 2 * CHUNK_BYTES
    assert found.idle_seconds < 60
    parts.discard(found.path)
    assert len(list(store.parts.iterdir())) == 2, "the other one and its marks"


def test_offline_finishes_what_lacks_nothing(store: Store) -> None:
    orphan(store, set(range(7)))
    fetch(store, BLOB, "http://127.0.0.1:9/w", network=Network(offline=True))


def test_offline_keeps_what_lacks_something(store: Store) -> None:
    orphan(store, {0, 1})
    with pytest.raises(NetworkError, match="not on this machine"):
        fetch(store, BLOB, "http://127.0.0.1:9/w", network=Network(offline=True))
    (found,) = parts.unfinished(store.parts)
    assert found.disk_bytes == 2 * CHUNK_BYTES


def test_bad_local_file_leaves_its_good_chunks(store: Store, site: Site, tmp_path: Path) -> None:
    rotten = bytearray(DATA)
    rotten[CHUNK_BYTES] ^= 1
    copy = tmp_path / "copy"
    copy.write_bytes(rotten)
    fetch(store, BLOB, FileSource(path=str(copy)), site.url + "/w")
    assert asked(site) == {1}


_FETCHER = """
    import signal, sys
    # whoever started the tests in the background may have had it ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from pathlib import Path
    from mbpm.fetch import Wanted, obtain_all
    from mbpm.fetch.network import Network
    from mbpm.output import Output
    from mbpm.store import Store
    from specs.blobs import Blob, UrlSource
    root, url, card = sys.argv[1:]
    blob = Blob.parse(Path(card).read_bytes(), card)
    store = Store(Path(root) / "store", Path(root) / "staging")
    item = Wanted(blob, [UrlSource(url=url)], "weights", "base")
    obtain_all(store, [item], Network(), Output("quiet"))
"""


def marked(store: Store) -> set[int]:
    """The chunks that part files say they hold."""
    return {
        index
        for marks in store.parts.glob("*.chunks")
        for index, mark in enumerate(marks.read_bytes())
        if mark == ord("1")
    }


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_again_and_again(store: Store, site: Site, tmp_path: Path) -> None:
    """What was verified when the process died is never asked for again."""
    card = tmp_path / "card"
    card.write_bytes(BLOB.canonical())
    command = [sys.executable, "-c", textwrap.dedent(_FETCHER), str(store.root.parent)]
    command += [site.url + "/w", str(card)]
    dice = random.Random(7)
    kept: set[int] = set()
    for _ in range(3):
        site.pauses = [0.0, *[60.0] * 20]
        site.cuts = [dice.randrange(CHUNK_BYTES, 2 * CHUNK_BYTES)]
        site.requests.clear()
        process = subprocess.Popen(command)
        while not marked(store) > kept:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(dice.random() / 5)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not kept & asked(site)
        kept = marked(store)
    site.pauses, site.cuts, site.requests = [], [], []
    subprocess.run(command, check=True)
    assert asked(site) == set(range(7)) - kept
    assert Blob.of_file(store.blob_path(BLOB.sha256), BLOB.path) == BLOB
    assert list(store.parts.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="needs SIGINT")
def test_interrupted(store: Store, site: Site, tmp_path: Path) -> None:
    """Ctrl-C ends it soon, gives the part file up, and says nothing of transfers."""
    card = tmp_path / "card"
    card.write_bytes(BLOB.canonical())
    command = [sys.executable, "-c", textwrap.dedent(_FETCHER), str(store.root.parent)]
    site.pauses = [0.0, *[3.0] * 20]
    site.cuts = [CHUNK_BYTES + 5]
    process = subprocess.Popen(
        [*command, site.url + "/w", str(card)], stderr=subprocess.PIPE, text=True
    )
    while not marked(store):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    site.pauses.clear()
    site.cuts.clear()
    site.requests.clear()
    kept = marked(store)
    fetch(store, BLOB, site.url + "/w")
    assert not kept & asked(site)
