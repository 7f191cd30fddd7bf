"""Publishing: what is refused, and that it happens whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry_index import writing as writing_module
from registry_index.packing import build_manifest
from registry_index.publish import Release, check_release, publish, publish_base
from registry_index.summarising import rebuild
from registry_index.summary import read_summary
from registry_index.tree import Registry
from registry_index.writing import writing
from specs.blobs import Blob
from specs.errors import (
    DoesNotFitError,
    GateError,
    IntegrityError,
    MbpmError,
    NotFoundError,
    UsageError,
)
from specs.index_line import IndexLine
from specs.manifest import Manifest
from tests.support.packs import (
    MODULES,
    adapter_tensors,
    evals,
    pack_folder,
    published,
    registry_with_base,
    tiny_base,
)

WRITES = 6
"""What a second version of a test pack writes: adapter, routing, evals, manifest, mark, index."""
SUMMARY_WRITES = 2
"""And then: a page and the root."""
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A registry that knows the tiny base."""
    registry_with_base(tmp_path / "team", tmp_path / "files")
    return tmp_path / "team"


def summary_is_whole(root: Path) -> bool:
    """Whether every page of the root is there and readable, as one who knows of no mark sees it."""
    summary = read_summary(Registry(root), pending=True)
    assert summary is not None
    return not any(summary.page(n).problems for n in range(len(summary.root.pages)))


def snapshot(root: Path) -> dict[str, str]:
    """What a reader can see of a registry: every file but the lock, with its digest."""
    return {
        str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in root.rglob("*")
        if f.is_file() and f.name != ".lock"
    }


def check(folder: Path, root: Path, **options: Any) -> Release:
    return check_release(*build_manifest(folder), root, **options)


def test_a_published_pack_is_in_the_registry(tmp_path: Path, root: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal", "1.2.0", requires={"law": "^1"})
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    release = check(folder, root, now=when)
    publish(release, root)
    assert (release.base, release.modules) == ("tiny", len(MODULES))
    registry = Registry(root)
    assert (registry.name, registry.names()) == ("team", ["legal"])
    (line,) = registry.lines("legal")
    assert line == release.line
    assert line.published == "2026-01-02T03:04:05Z"
    assert line.requires == {"law": "^1"}
    assert line.forced == ()
    assert line.evals is not None
    assert (line.evals.metric, line.evals.base, line.evals.pack) == ("perplexity", 20.0, 10.0)
    raw = registry.blob_path(line.manifest).read_bytes()
    assert len(raw) == line.manifest_size
    manifest = Manifest.parse(raw, "manifest")
    assert manifest == release.manifest
    assert manifest.digest() == line.manifest
    assert manifest.size == line.size
    for blob in manifest.blobs:
        assert Blob.of_file(registry.blob_path(blob.sha256), blob.path) == blob
    assert not (root / ".parts").exists()


def test_checking_writes_nothing(tmp_path: Path, root: Path) -> None:
    before = snapshot(root)
    check(pack_folder(tmp_path / "p", "legal"), root)
    assert snapshot(root) == before


def test_versions_stand_in_order_of_publication(tmp_path: Path, root: Path) -> None:
    for version in ("1.0.0", "2.0.0", "1.0.1"):
        published(pack_folder(tmp_path / version, "legal", version), root)
    assert [line.version for line in Registry(root).lines("legal")] == ["1.0.0", "2.0.0", "1.0.1"]


def test_an_index_file_without_a_last_newline_is_not_corrupted(tmp_path: Path, root: Path) -> None:
    published(pack_folder(tmp_path / "a", "legal"), root)
    file = root / "index" / "le" / "ga" / "legal"
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    published(pack_folder(tmp_path / "b", "legal", "1.1.0"), root)
    assert len(Registry(root).lines("legal")) == 2


@pytest.mark.parametrize("second", ["1.0.0", "1.0.0+other.build"])
def test_the_same_version_twice_even_with_force(tmp_path: Path, root: Path, second: str) -> None:
    published(pack_folder(tmp_path / "a", "legal"), root)
    before = snapshot(root)
    for force in (False, True):
        folder = pack_folder(tmp_path / f"b{force}", "legal", second, files={"LICENSE": b"new"})
        with pytest.raises(MbpmError, match=r"legal 1.0.0 is already in the registry `team`"):
            published(folder, root, force=force)
    assert snapshot(root) == before


def test_a_version_of_a_newer_format_is_not_taken_again(tmp_path: Path, root: Path) -> None:
    file = root / "index" / "le" / "ga" / "legal"
    file.parent.mkdir(parents=True)
    file.write_text('{"format":2,"name":"legal","version":"1.0.0"}\n')
    with pytest.raises(MbpmError, match="already in the registry"):
        published(pack_folder(tmp_path / "a", "legal"), root)
    published(pack_folder(tmp_path / "b", "legal", "1.1.0"), root)
    assert Registry(root).index("legal").newer == ("1.0.0",)


def test_a_pack_that_does_not_attach_even_with_force(tmp_path: Path, root: Path) -> None:
    tensors = adapter_tensors()
    tensors.popitem()
    folder = pack_folder(tmp_path / "p", "legal", tensors=tensors)
    with pytest.raises(IntegrityError, match="only one half"):
        published(folder, root, force=True)
    assert Registry(root).names() == []


def test_a_pack_for_another_base(tmp_path: Path, root: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal", fingerprint="c" * 64)
    with pytest.raises(IntegrityError, match="was made for base tiny"):
        published(folder, root, force=True)


def test_a_base_that_nobody_knows(tmp_path: Path, root: Path) -> None:
    other = {"name": "unheard-of", "fingerprint": "c" * 64}
    folder = pack_folder(tmp_path / "p", "legal", fingerprint="c" * 64, base=other)
    with pytest.raises(NotFoundError, match="`unheard-of`"):
        published(folder, root)


def test_numbers_that_are_none_even_with_force(tmp_path: Path, root: Path) -> None:
    tensors = adapter_tensors()
    next(iter(tensors.values())).fill(np.nan)
    with pytest.raises(IntegrityError, match="holds NaN"):
        published(pack_folder(tmp_path / "p", "legal", tensors=tensors), root, force=True)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ({"gain_low": 0.0}, "no gain shown on `perplexity`"),
        ({"gain_low": -1.0}, "no gain shown on `perplexity`"),
        ({"pack": 25.0}, "is not better than the base's"),
        ({"pack": 20.0}, "is not better than the base's"),
        ({"higher_is_better": True}, "is not better than the base's"),
        ({"gain": 20.0}, "outside its own interval"),
        ({"groups": 1}, "measured on 1 group"),
    ],
)
def test_no_gain_is_refused_unless_forced_and_recorded(
    tmp_path: Path, root: Path, metric: dict[str, Any], words: str
) -> None:
    folder = pack_folder(tmp_path / "p", "legal", metric=metric)
    with pytest.raises(GateError, match=words) as caught:
        published(folder, root)
    assert caught.value.exit_code == 9
    assert Registry(root).names() == []
    published(folder, root, force=True)
    (line,) = Registry(root).lines("legal")
    assert any(words in reason for reason in line.forced)


def test_what_was_not_measured_is_refused_with_the_way_to_measure_it(
    tmp_path: Path, root: Path
) -> None:
    bare = evals("legal").model_copy(update={"routing": None, "off_domain": None, "subject": None})
    folder = pack_folder(tmp_path / "p", "legal", files={"evals.json": bare.canonical()})
    with pytest.raises(GateError, match="nothing was measured of its routing") as caught:
        published(folder, root)
    assert f"`mbpm eval {folder} --save`" in str(caught.value.hint)
    assert len(caught.value.details["failed"]) == 3  # type: ignore[arg-type]
    published(folder, root, force=True)
    assert len(Registry(root).lines("legal")[0].forced) == 3


def test_force_says_nothing_where_nothing_failed(tmp_path: Path, root: Path) -> None:
    published(pack_folder(tmp_path / "p", "legal"), root, force=True)
    assert Registry(root).lines("legal")[0].forced == ()


def test_a_new_registry_is_named_after_its_directory(tmp_path: Path) -> None:
    for folder, name in (("My Team!", "my-team"), ("...", "registry"), ("con", "registry")):
        root = tmp_path / "parent" / folder
        publish_base(tiny_base(tmp_path / "files"), root)
        assert Registry(root).name == name


def test_a_directory_with_other_files_does_not_become_a_registry(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    folder = pack_folder(tmp_path / "p", "legal")
    with pytest.raises(UsageError, match=r"holds other files \(`thesis.txt`\)"):
        check(folder, tmp_path / "home")
    with pytest.raises(UsageError, match="holds other files"):
        publish_base(tiny_base(tmp_path / "files"), tmp_path / "home")
    with pytest.raises(UsageError, match="is not a directory"):
        check(folder, tmp_path / "home" / "thesis.txt")
    assert [f.name for f in (tmp_path / "home").iterdir() if f.name != ".lock"] == ["thesis.txt"]


def test_a_malformed_index_is_not_written_over(tmp_path: Path, root: Path) -> None:
    published(pack_folder(tmp_path / "a", "legal"), root)
    file = root / "index" / "le" / "ga" / "legal"
    file.write_bytes(file.read_bytes() + b"{")
    before = snapshot(root)
    with pytest.raises(IntegrityError, match="line 2"):
        published(pack_folder(tmp_path / "b", "legal", "1.1.0"), root)
    assert snapshot(root) == before


def test_a_damaged_blob_is_mended_by_publishing_it_again(tmp_path: Path, root: Path) -> None:
    release = published(pack_folder(tmp_path / "a", "legal", files={"LICENSE": b"yes"}), root)
    stored = Registry(root).blob_path(release.manifest.blob("LICENSE").sha256)
    stored.write_bytes(b"no!")
    published(pack_folder(tmp_path / "b", "legal", "1.1.0", files={"LICENSE": b"yes"}), root)
    assert stored.read_bytes() == b"yes"


def test_a_file_that_changes_after_the_check(tmp_path: Path, root: Path) -> None:
    folder = pack_folder(tmp_path / "p", "legal")
    release = check(folder, root)
    (folder / "README.md").write_text("swapped")
    with pytest.raises(IntegrityError, match=r"README\.md: changed while it was published"):
        publish(release, root)
    assert Registry(root).names() == []
    assert not (root / ".parts").exists()


def test_a_slower_publisher_of_the_same_version(tmp_path: Path, root: Path) -> None:
    release = check(pack_folder(tmp_path / "a", "legal"), root)
    published(pack_folder(tmp_path / "b", "legal", files={"LICENSE": b"x"}), root)
    with pytest.raises(MbpmError, match="already in the registry"):
        publish(release, root)
    assert len(Registry(root).lines("legal")) == 1


def test_too_little_disk(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = check(pack_folder(tmp_path / "p", "legal"), root)
    before = snapshot(root)
    usage = shutil.disk_usage(root)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DoesNotFitError, match="the disk has 10 free"):
        publish(release, root)
    assert snapshot(root) == before


@pytest.mark.parametrize("step", range(WRITES + SUMMARY_WRITES + 1))
def test_disk_full_at_any_step_leaves_the_old_index(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    published(pack_folder(tmp_path / "a", "legal"), root)
    release = check(pack_folder(tmp_path / "b", "legal", "1.1.0"), root)
    calls, real = [0], os.fsync

    def fsync(handle: int) -> None:
        calls[0] += 1
        if calls[0] == 2 * step + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(writing_module.os, "fsync", fsync)
    if step < WRITES + SUMMARY_WRITES:
        with pytest.raises(DoesNotFitError, match="the disk is full") as caught:
            publish(release, root)
        changed = step >= WRITES
        assert ("the index is unchanged" in str(caught.value.hint)) != changed
        assert ("the index is changed" in caught.value.message) == changed
    else:
        publish(release, root)
    monkeypatch.undo()
    assert summary_is_whole(root)
    versions = [line.version for line in Registry(root).lines("legal")]
    assert versions == (["1.0.0"] if step < WRITES else ["1.0.0", "1.1.0"])
    assert not (root / ".parts").exists()


def test_another_base_of_the_same_name_is_refused(tmp_path: Path, root: Path) -> None:
    other = tiny_base(tmp_path / "other", fingerprint="c" * 64)
    with pytest.raises(MbpmError, match="another base named `tiny`"):
        publish_base(other, root)
    better = tiny_base(tmp_path / "files", description="The same base, better described")
    publish_base(better, root)
    assert Registry(root).base("tiny") == better


def test_files_of_a_base_can_be_served_by_the_registry(tmp_path: Path) -> None:
    card = tiny_base(tmp_path / "files", weights=b"real weights")
    file = tmp_path / "files" / "tiny.gguf"
    publish_base(card, tmp_path / "r", {"weights.gguf": file})
    stored = Registry(tmp_path / "r").blob_path(card.file("weights.gguf").blob.sha256)
    assert stored.read_bytes() == b"real weights"
    file.write_bytes(b"fake weights")
    with pytest.raises(IntegrityError):
        publish_base(card, tmp_path / "r2", {"weights.gguf": file})


def _publish_some(root: str, parent: str, worker: int, count: int) -> None:
    for n in range(count):
        folder = Path(parent, f"w{worker}-{n}")
        published(pack_folder(folder, "legal", f"{worker}.{n}.0"), Path(root))
        lines = Registry(Path(root)).lines("legal")
        assert f"{worker}.{n}.0" in [line.version for line in lines]


def test_concurrent_publishers_lose_nothing(tmp_path: Path, root: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_publish_some, args=(str(root), str(tmp_path), worker, 4))
        for worker in range(3)
    ]
    for process in workers:
        process.start()
    for process in workers:
        process.join(120)
    assert [process.exitcode for process in workers] == [0, 0, 0]
    found = sorted(line.version for line in Registry(root).lines("legal"))
    assert found == sorted(f"{w}.{n}.0" for w in range(3) for n in range(4))


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from registry_index import publish
    from tests.support.packs import published

    left, real = int(sys.argv[3]), Path.replace
    def replace(self, target):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return real(self, target)
    Path.replace = replace
    published(Path(sys.argv[1]), Path(sys.argv[2]))
    """
)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("renames", range(WRITES + SUMMARY_WRITES))
def test_kill_9_during_publish_leaves_the_old_index_or_the_new_one(
    tmp_path: Path, root: Path, renames: int
) -> None:
    published(pack_folder(tmp_path / "a", "legal"), root)
    old: list[IndexLine] = Registry(root).lines("legal")
    folder = pack_folder(tmp_path / "b", "legal", "1.1.0")
    arguments = [sys.executable, "-c", KILLED, str(folder), str(root), str(renames)]
    done = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    found = Registry(root).lines("legal")
    assert found[:1] == old
    assert len(found) == (1 if renames < WRITES else 2)
    assert summary_is_whole(root)
    for line in found:
        manifest = Manifest.parse(Registry(root).blob_path(line.manifest).read_bytes(), "m")
        for blob in manifest.blobs:
            assert Blob.of_file(Registry(root).blob_path(blob.sha256), blob.path) == blob
    # the lock went with its holder, and the next publisher tidies up
    published(pack_folder(tmp_path / "c", "legal", "1.2.0"), root)
    assert Registry(root).lines("legal")[-1].version == "1.2.0"
    assert not (root / ".parts").exists()
    kept = snapshot(root / "summary")
    with writing(root) as registry:
        rebuild(registry)
    assert kept["root.json"] == snapshot(root / "summary")["root.json"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kill_9_while_a_registry_is_made(tmp_path: Path) -> None:
    registry_with_base(tmp_path / "known", tmp_path / "files")
    root = tmp_path / "new"
    script = KILLED.replace(
        "published(Path(sys.argv[1]), Path(sys.argv[2]))",
        "from tests.support.packs import registry_with_base\n"
        "registry_with_base(Path(sys.argv[2]), Path(sys.argv[1]))",
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "files"), str(root), "0"]
    done = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(NotFoundError):
        _ = Registry(root).name
    registry_with_base(root, tmp_path / "files")
    published(pack_folder(tmp_path / "p", "legal"), root)
    assert Registry(root).names() == ["legal"]
