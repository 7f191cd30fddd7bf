"""The store: after any sequence of what is done to it, what has a final name is whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mbpm.fetch import Wanted, obtain_all, salvage
from mbpm.fetch.network import Network
from mbpm.output import Output
from mbpm.store import Store
from registry_index.packing import build_manifest
from specs.blobs import Blob, FileSource
from specs.errors import IntegrityError
from specs.manifest import MANIFEST_FILE, Manifest
from tests.support.packs import pack_folder

NAMES = ("alpha", "beta")


class AnyOrder(RuleBasedStateMachine):
    """Blobs come, are damaged, salvaged and dropped; folders are made and dropped."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "store", self.folder / "staging")
        self.manifests: dict[str, Manifest] = {}
        self.bytes: dict[str, bytes] = {}
        for name in NAMES:
            # both hold the same LICENSE, and so share a blob
            made = pack_folder(self.folder / name, name, files={"LICENSE": b"the same " * 9})
            self.manifests[name] = build_manifest(made)[0]
            for blob in self.manifests[name].blobs:
                self.bytes[blob.sha256] = (made / blob.path).read_bytes()
        self.stored: set[str] = set()
        self.damaged: set[str] = set()
        self.folders: dict[str, set[str]] = {}
        """Pack -> its files that were damaged through the link they share with the store."""

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def blobs(self) -> list[tuple[str, Blob]]:
        return [(n, b) for n, m in self.manifests.items() for b in m.blobs]

    @rule(data=st.data())
    def adopt(self, data: st.DataObject) -> None:
        _, blob = data.draw(st.sampled_from(self.blobs()))
        self.store.parts.mkdir(parents=True, exist_ok=True)
        file = self.store.parts / "checked"
        file.write_bytes(self.bytes[blob.sha256])
        self.store.adopt(file, blob.sha256)
        self.stored.add(blob.sha256)
        self.damaged.discard(blob.sha256)

    @rule(data=st.data())
    def fetch(self, data: st.DataObject) -> None:
        name, blob = data.draw(st.sampled_from(self.blobs()))
        source = FileSource(path=str(self.folder / name / blob.path))
        wanted = Wanted(blob, [source], "what is tested", "title")
        obtain_all(self.store, [wanted], Network(offline=True), Output("quiet"))
        self.stored.add(blob.sha256)

    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        """A bad disk or an editor, of the same size."""
        there = sorted(self.stored - self.damaged)
        if not there:
            return
        digest = data.draw(st.sampled_from(there))
        file = self.store.blob_path(digest)
        linked = file.stat().st_ino
        file.chmod(0o644)
        with file.open("r+b") as stream:
            stream.write(b"\xff")
        self.damaged.add(digest)
        for name, bad in self.folders.items():
            for blob in self.manifests[name].blobs:
                placed = self.place(name) / blob.path
                if blob.sha256 == digest and placed.stat().st_ino == linked:
                    bad.add(blob.path)

    @rule(data=st.data())
    def salvage(self, data: st.DataObject) -> None:
        _, blob = data.draw(st.sampled_from(self.blobs()))
        was_there = blob.sha256 in self.stored
        salvage(self.store, blob.sha256)
        assert not self.store.has(blob)
        parts = list(self.store.parts.glob(f"{blob.sha256}.*.part"))
        assert parts or not was_there
        self.stored.discard(blob.sha256)
        self.damaged.discard(blob.sha256)

    @rule(name=st.sampled_from(NAMES), anew=st.booleans())
    def make(self, name: str, anew: bool) -> None:
        manifest = self.manifests[name]
        digests = {b.sha256 for b in manifest.blobs}
        if not digests <= self.stored:
            if name not in self.folders or anew:
                with pytest.raises(OSError):
                    self.store.make_pack(manifest, anew=anew)
            return
        self.store.make_pack(manifest, anew=anew)
        if anew or name not in self.folders:
            bad = {b.path for b in manifest.blobs if b.sha256 in self.damaged}
            self.folders[name] = bad

    @rule(name=st.sampled_from(NAMES))
    def drop_folder(self, name: str) -> None:
        self.store.drop("pack", self.manifests[name].digest())
        self.folders.pop(name, None)

    @rule(data=st.data())
    def drop_blob(self, data: st.DataObject) -> None:
        _, blob = data.draw(st.sampled_from(self.blobs()))
        self.store.drop("blob", blob.sha256)
        self.stored.discard(blob.sha256)
        self.damaged.discard(blob.sha256)

    @rule(name=st.sampled_from(NAMES))
    @precondition(lambda self: self.folders)
    def document(self, name: str) -> None:
        digest = self.manifests[name].digest()
        if self.store.has_document(digest):
            assert self.store.manifest(digest) == self.manifests[name]
        else:
            with pytest.raises(IntegrityError):
                self.store.manifest(digest)

    @rule()
    def clear_staging(self) -> None:
        """As the next writer does."""
        shutil.rmtree(self.store.staging, ignore_errors=True)

    def place(self, name: str) -> Path:
        return self.store.pack_path(self.manifests[name].digest())

    @invariant()
    def blobs_are_whole(self) -> None:
        documents = {m.digest() for m in self.manifests.values()}
        found = {f.name: f for f in (self.store.root / "blobs").rglob("*") if f.is_file()}
        assert found.keys() - documents == self.stored
        for digest, file in found.items():
            right = hashlib.sha256(file.read_bytes()).hexdigest() == digest
            assert right == (digest not in self.damaged)
        for _, blob in self.blobs():
            assert self.store.has(blob) == (blob.sha256 in self.stored)

    @invariant()
    def folders_are_whole(self) -> None:
        there = {p.name for p in (self.store.root / "packs").glob("*")}
        assert there == {self.manifests[n].digest() for n in self.folders}
        for name, bad in self.folders.items():
            manifest = self.manifests[name]
            files = {b.path: b.sha256 for b in manifest.blobs} | {MANIFEST_FILE: manifest.digest()}
            placed = {f.name: f.read_bytes() for f in self.place(name).iterdir()}
            assert placed.keys() == files.keys()
            for path, digest in files.items():
                assert (hashlib.sha256(placed[path]).hexdigest() == digest) == (path not in bad)


class WithoutLinks(AnyOrder):
    """The same where folders are copies."""

    @initialize()
    def no_links(self) -> None:
        patch = mock.patch.object(os, "link", side_effect=OSError)
        patch.start()
        self.patch = patch

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.stop()
        super().teardown()


AnyOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
WithoutLinks.TestCase.settings = AnyOrder.TestCase.settings
TestAnyOrder = AnyOrder.TestCase
TestWithoutLinks = WithoutLinks.TestCase
