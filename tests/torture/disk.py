"""What lies in a home, read from the disk alone."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from specs.blobs import CHUNK_BYTES
from tests.torture.model import Content, Model
from tests.torture.world import World

Chunks = dict[str, set[int]]
"""Digest of a blob -> the chunks of it that are whole."""


def copy_home(home: Path, target: Path) -> None:
    """Copy a home with its hard links, which `shutil.copytree` would tear apart."""
    shutil.rmtree(target, ignore_errors=True)
    copied: dict[int, Path] = {}
    for folder, _folders, files in os.walk(home):
        there = target / Path(folder).relative_to(home)
        there.mkdir(parents=True)
        for name in files:
            file = Path(folder, name)
            inode = file.stat().st_ino
            if inode in copied:
                os.link(copied[inode], there / name)
            else:
                copied[inode] = there / name
                shutil.copy2(file, there / name)


def have(home: Path, world: World) -> Chunks:
    """The chunks of blobs that need not be fetched any more: stored, or in a part file.

    Manifests and cards are no blobs here: they are read with the index.
    """
    found: Chunks = {}
    documents = {parts.document for parts in (*world.packs.values(), world.base)}
    for digest, data in world.blobs.items():
        if digest in documents:
            continue
        stored = home / "store" / "blobs" / "sha256" / digest[:2] / digest
        files = [stored] if stored.is_file() else []
        files += (home / "store" / "parts").glob(f"{digest}.*.part")
        for file in files:
            found.setdefault(digest, set()).update(_whole(file.read_bytes(), data))
    return found


def stored(home: Path) -> set[str]:
    """The digests of the blobs in the store."""
    return {p.name for p in (home / "store" / "blobs" / "sha256").glob("*/*")}


def _whole(raw: bytes, data: bytes) -> Iterable[int]:
    for index in range(-(-len(data) // CHUNK_BYTES)):
        part = slice(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES)
        if raw[part] == data[part]:
            yield index


def check_clean(home: Path, model: Model, world: World, *, links: bool = True) -> None:
    """After `gc` and `clean`: every file below a home is there for a reason, and none is missing.

    Args:
        home: The home.
        model: What is installed in it.
        world: What that consists of.
        links: Whether the file system has hard links, so that nothing is there twice.

    Raises:
        AssertionError: naming the files.
    """
    wanted = expected_files(model, world)
    found = {
        Path(folder, name).relative_to(home).as_posix()
        for folder, _folders, files in os.walk(home)
        for name in files
    }
    found -= {f for f in found if _bookkeeping(f)}
    assert not found - wanted.keys(), f"left over: {sorted(found - wanted.keys())}"
    assert not wanted.keys() - found, f"missing: {sorted(wanted.keys() - found)}"
    inodes = {}
    for name, digest in wanted.items():
        file = home / name
        assert digest is None or file.read_bytes() == world.blobs[digest], name
        inodes[file.stat().st_ino] = file.stat().st_size
    digests = [d for d in wanted.values() if d is not None]
    content = sum(len(world.blobs[d]) for d in (set(digests) if links else digests))
    others = sum((home / n).stat().st_size for n, digest in wanted.items() if digest is None)
    assert sum(inodes.values()) == content + others, "the disk holds more bytes than it should"


def expected_files(model: Model, world: World) -> dict[str, str | None]:
    """Path -> digest of every file that the current generations need; None for generations."""
    files: dict[str, str | None] = {}
    for name, profile in model.profiles.items():
        root = "" if name == "default" else f"profiles/{name}/"
        if profile.number:
            files[f"{root}current"] = None
        for number in range(1, profile.number + 1):
            files[f"{root}generations/{number}.json"] = None
        files |= _content(profile.now, world)
    return files


def _content(content: Content, world: World) -> dict[str, str]:
    found = {}
    made = [("packs", world.packs[name, p.version]) for name, p in content.packs.items()]
    made += [("bases", world.base) for _ in content.bases]
    for kind, parts in made:
        for name, digest in parts.files.items():
            found[f"store/{kind}/{parts.document}/{name}"] = digest
            found[f"store/blobs/sha256/{digest[:2]}/{digest}"] = digest
    return found


def _bookkeeping(name: str) -> bool:
    """Files that stay whatever is installed: the lock, and what is known of registries."""
    return bool(re.fullmatch(r"lock|registries\.toml|(profiles/[a-z]+/)?origins\.json", name))
