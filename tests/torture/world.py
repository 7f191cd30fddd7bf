"""What there is to install: a registry behind a server, pack folders, and what they consist of."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from registry_index.tree import Registry
from specs.blobs import CHUNK_BYTES, UrlSource
from tests.support.packs import pack_folder, published, tiny_base
from tests.torture.server import Server, serve

VERSIONS = {
    "alpha": ("1.0.0", "1.1.0", "2.0.0"),
    "beta": ("1.0.0", "1.1.0"),
    "gamma": ("1.0.0", "2.0.0"),
    "left": ("1.0.0", "2.0.0"),
    "right": ("1.0.0", "2.0.0"),
}
"""The packs of the registry."""
FOLDERS = ("1.0.0", "2.0.0")
"""The versions of the pack `omega`, which is installed from folders."""
BIG = "gamma"
"""The pack with a file of several chunks."""
BASE = "tiny"


def requires(name: str, version: str) -> dict[str, str]:
    """`beta` needs any `alpha`; `left` needs the `right` of its own version."""
    return {"beta": {"alpha": "*"}, "left": {"right": f"={version}"}}.get(name, {})


@dataclass(frozen=True)
class Parts:
    """What a pack or base puts on the disk."""

    document: str
    """Digest of its manifest or card."""
    files: Mapping[str, str]
    """File name -> digest, the document included."""


@dataclass(frozen=True)
class World:
    """The things themselves, and what the tests know of them."""

    server: Server
    registry: str
    """What `--registry` is given."""
    label: str
    """What records call it."""
    folders: Mapping[str, Path]
    """Version of `omega` -> its folder."""
    packs: Mapping[tuple[str, str], Parts]
    base: Parts
    blobs: Mapping[str, bytes]
    """Digest -> bytes of everything."""
    paths: Mapping[str, str]
    """Path on the server -> digest."""

    def label_of(self, name: str, version: str) -> str:
        """Where the record of a pack says it came from."""
        return f"folder {self.folders[version]}" if name == "omega" else self.label


@contextlib.contextmanager
def world(root: Path, *, chunk: int = CHUNK_BYTES) -> Iterator[World]:
    """Make everything below `root`, and serve it until the block ends.

    The base is a little more than two `chunk` large, the file of the pack `BIG` than one.
    """
    tree, weights = root / "registry", root / "weights"
    noise = random.Random(7)
    with serve({"registry": tree, "weights": weights}) as server:
        from registry_index.publish import publish_base

        source = UrlSource(url=f"{server.url}/weights/{BASE}.gguf")
        bytes_of_base = noise.randbytes(2 * chunk + 1000)
        card = tiny_base(weights, name=BASE, weights=bytes_of_base, sources=(source,))
        publish_base(card, tree)
        made = {}
        for name, versions in VERSIONS.items():
            for version in versions:
                extra = {}
                if name == BIG:
                    extra = {"LICENSE": noise.randbytes(chunk + 5000)}
                needs = requires(name, version)
                folder = root / "made" / f"{name}-{version}"
                pack_folder(folder, name, version, files=extra, requires=needs)
                published(folder, tree)
                made[name, version] = folder
        folders = {}
        for version in FOLDERS:
            folders[version] = root / "folders" / f"omega-{version}"
            pack_folder(folders[version], "omega", version)
        yield _described(root, server, tree, bytes_of_base, folders)


def _described(
    root: Path, server: Server, tree: Path, weights: bytes, folders: Mapping[str, Path]
) -> World:
    blobs: dict[str, bytes] = {}
    paths: dict[str, str] = {}

    def put(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return digest

    packs = {}
    for name, versions in VERSIONS.items():
        lines = {line.version: line for line in Registry(tree).lines(name)}
        for version in versions:
            raw = (
                tree / "blobs" / lines[version].manifest[:2] / lines[version].manifest
            ).read_bytes()
            packs[name, version] = _parts(raw, root / "made" / f"{name}-{version}", put)
    for version, folder in folders.items():
        from registry_index.packing import build_manifest

        packs["omega", version] = _parts(build_manifest(folder)[0].canonical(), folder, put)
    card = (tree / "bases" / f"{BASE}.json").read_bytes()
    base = Parts(put(card), {"card.json": put(card), "weights.gguf": put(weights)})
    paths[f"/weights/{BASE}.gguf"] = put(weights)
    for file in (tree / "blobs").rglob("*"):
        if file.is_file():
            paths[f"/registry/{file.relative_to(tree).as_posix()}"] = file.name
    registry = f"{server.url}/registry"
    return World(server, registry, registry, folders, packs, base, blobs, paths)


def _parts(manifest: bytes, folder: Path, put: object) -> Parts:
    assert callable(put)
    files = {"manifest.json": put(manifest)}
    for blob in json.loads(manifest)["blobs"]:
        files[blob["path"]] = put((folder / blob["path"]).read_bytes())
        assert files[blob["path"]] == blob["sha256"]
    return Parts(files["manifest.json"], files)
