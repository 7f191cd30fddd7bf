"""A home whose base is calibrated for routing and whose packs are a few kilobytes each.

Nothing in it can answer: it is for what is made of installed packs. Changes go through the writer
alone, so that neither a registry nor a plan is needed.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mbpm.home import Home
from mbpm.output import Output
from mbpm.transaction import writer
from registry_index.packing import build_manifest
from runtime.router import BaseRouting, PackRouting
from specs.base_card import BASE_ROUTING_FILE, WEIGHTS_FILE, BaseBlob, BaseCard
from specs.blobs import Blob
from specs.generation import Generation, InstalledBase, InstalledPack
from specs.manifest import KNOWLEDGE_FILE, ROUTING_FILE
from tests.support.knowledge import knowledge_bytes
from tests.support.packs import FINGERPRINT, pack_folder, tiny_base

WIDTH = 32


def base_routing() -> BaseRouting:
    """A whitening that leaves features as they are."""
    mean, whitening = np.zeros(WIDTH, np.float32), np.eye(WIDTH, dtype=np.float32)
    return BaseRouting(FINGERPRINT, 0, mean, whitening)


def pack_routing(name: str, *, near: str | None = None) -> PackRouting:
    """A prototype of its own, or one close to another pack's."""

    def direction(of: str) -> np.ndarray:
        return np.random.default_rng(sum(of.encode())).standard_normal(WIDTH)

    prototype = direction(name) if near is None else direction(near) + 0.3 * direction(name)
    return PackRouting(FINGERPRINT, prototype[None].astype(np.float32), 1 / 3, 0.9, 0.02)


class DerivedHome:
    """A home in `folder`, and packs to install in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = Output(mode="human", no_color=True)
        self.home = Home(folder / "home")

    def with_profile(self, profile: str) -> DerivedHome:
        """The same home, another profile."""
        other = DerivedHome(self.folder)
        other.home = self.home.with_profile(profile)
        return other

    def pack(
        self,
        name: str,
        version: str = "1.0.0",
        *,
        near: str | None = None,
        knows: Mapping[str, str] | None = None,
    ) -> InstalledPack:
        """Have a pack's bytes in the store; `knows` maps titles to texts."""
        scratch = self.folder / uuid.uuid4().hex
        files = {ROUTING_FILE: pack_routing(name, near=near).save()}
        if knows is not None:
            files[KNOWLEDGE_FILE] = knowledge_bytes(self.folder, knows.items())
        manifest, paths = build_manifest(pack_folder(scratch, name, version, files=files))
        for blob in manifest.blobs:
            self._adopt(paths[blob.path].read_bytes(), blob)
        shutil.rmtree(scratch)
        self.home.store.make_pack(manifest)
        return InstalledPack(
            name=name, version=version, manifest=manifest.digest(), base="tiny", registry="test"
        )

    def base(self, *, calibrated: bool = True) -> InstalledBase:
        """Have the base's bytes in the store."""
        files = {WEIGHTS_FILE: b"not really a model"}
        if calibrated:
            files[BASE_ROUTING_FILE] = base_routing().save()
        blobs = {name: Blob.of_bytes(name, data) for name, data in files.items()}
        for name, blob in blobs.items():
            self._adopt(files[name], blob)
        card = self._card(tuple(BaseBlob(blob=b) for b in blobs.values()))
        self.home.store.make_base(card)
        return InstalledBase(name="tiny", fingerprint=FINGERPRINT, card=card.digest())

    def change(self, *packs: InstalledPack, calibrated: bool = True) -> Generation:
        """Make these what is installed."""
        bases = [self.base(calibrated=calibrated)]
        with writer(self.home, self.out, "mbpm test") as right:
            return right.commit(packs, bases)

    def derived(self) -> list[str]:
        """The names of what triggers made."""
        return sorted(p.name for p in self.home.derived.glob("*"))

    def _card(self, files: tuple[BaseBlob, ...]) -> BaseCard:
        return tiny_base(self.folder / "base", files=files)

    def _adopt(self, data: bytes, blob: Blob) -> None:
        if not self.home.store.has(blob):
            scratch = self.folder / uuid.uuid4().hex
            scratch.write_bytes(data)
            self.home.store.adopt(scratch, blob.sha256)
