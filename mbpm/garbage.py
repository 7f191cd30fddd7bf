"""Freeing the disk of what no generation needs, by reference and never by age."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from specs.errors import IntegrityError, NotFoundError

if TYPE_CHECKING:
    from mbpm.home import Home
    from mbpm.transaction import Writer
    from specs.generation import Generation

PARTS_SECONDS = 14 * 24 * 3600
"""How long an unfinished download waits for somebody to go on with it."""
FOREIGN_SECONDS = 3600
"""Temporary files outside of what the lock protects may be somebody's for so long."""
_WRITERS_OWN = ("current", "journal", "owner", "origins")
"""Beginnings of names of files that only whoever holds the lock writes."""

Kind = Literal["pack", "base", "blob", "part", "index", "derived", "leftover"]


@dataclass(frozen=True)
class Waste:
    """One thing that nothing needs."""

    kind: Kind
    what: str
    """In words."""
    path: Path
    size: int
    """Bytes of disk; 0 for a folder of links to blobs that are listed themselves."""


def references(generations: Iterable[Generation], home: Home) -> set[str]:
    """Digests of every manifest, card and blob that these generations need."""
    store, found = home.store, set[str]()
    for generation in generations:
        # a damaged document needs nothing any more: to mend it means to fetch it again
        for pack in generation.packs:
            if pack.manifest not in found:
                found.add(pack.manifest)
                with suppress(IntegrityError):
                    found.update(b.sha256 for b in store.manifest(pack.manifest).blobs)
        for base in generation.bases:
            if base.card not in found:
                found.add(base.card)
                with suppress(IntegrityError):
                    found.update(f.blob.sha256 for f in store.card(base.card).files)
    return found


def needed(home: Home, keep: int) -> set[str]:
    """What the last `keep` generations of every profile need, the current ones included.

    Raises:
        IntegrityError: a profile's current generation cannot be read; then nothing is waste.
    """
    found: set[str] = set()
    for name in home.profiles():
        profile = home.with_profile(name)
        current = profile.current()
        earlier = (g for g in profile.generations() if g.number != current.number)
        found |= references([current, *islice(earlier, max(keep - 1, 0))], home)
    return found


def waste(home: Home, keep: int, *, parts: bool = False) -> list[Waste]:
    """Everything below the home that nothing needs; to be called under the writer's lock when it
    is to be freed.

    Args:
        home: Where to look.
        keep: How many generations of each profile keep their bytes, the current one included.
        parts: Also unfinished downloads that somebody may still go on with.

    Raises:
        IntegrityError: as `needed`.
    """
    keeping = needed(home, keep)
    return [
        *_documents(home, keeping),
        *_blobs(home, keeping),
        *_parts(home, all_of_them=parts),
        *_derived(home),
        *_leftovers(home),
    ]


def free(writer: Writer, wasted: Iterable[Waste]) -> None:
    """Free it; killed on the way, the rest is found again next time."""
    from mbpm.fetch.parts import discard
    from mbpm.files import remove

    store = writer.home.store
    for item in wasted:
        if item.kind in ("pack", "base"):
            store.drop(item.kind, item.path.name)
        elif item.kind == "part":
            discard(item.path)
        else:
            remove(item.path)


def keeping(home: Home, current: Generation, purged: Collection[str] = ()) -> set[str]:
    """What is still needed once the profile holds `current`.

    Args:
        home: The profile.
        current: What it holds.
        purged: Manifests of packs to be freed at once; then what all generations have of other
            packs is needed too, for they stay as they are.

    Raises:
        IntegrityError: packs are to be freed, and what a profile holds cannot be read.
    """
    kept = [current]
    for profile in map(home.with_profile, home.profiles()):
        if profile.profile != home.profile:
            try:
                kept.append(profile.current())
            except IntegrityError:
                # `gc` refuses then, so that until it is mended nothing is freed anyway
                if purged:
                    raise
        for generation in profile.generations() if purged else ():
            packs = tuple(p for p in generation.packs if p.manifest not in purged)
            kept.append(generation.model_copy(update={"packs": packs}))
    return references(kept, home)


def purge(writer: Writer, manifests: Iterable[str]) -> None:
    """Free packs by their manifests, wherever only earlier generations need them.

    Raises:
        IntegrityError: what a profile holds cannot be read; then nothing is freed.
    """
    home, store = writer.home, writer.home.store
    gone = set(manifests)
    kept = keeping(home, home.current(), gone)
    for digest in gone - kept:
        with suppress(IntegrityError):
            for blob in store.manifest(digest).blobs:
                if blob.sha256 not in kept:
                    store.drop("blob", blob.sha256)
        store.drop("pack", digest)
        store.drop("blob", digest)
    # what was made of them has their words too
    free(writer, list(_derived(home)))


def cached(home: Home, *, indexes: bool = True) -> list[Waste]:
    """What can be fetched or made again: unfinished downloads nobody is at work on, and with
    `indexes` the copies of registries' indexes and what was made of bases for a faster start."""
    copies = [
        Waste("index", f"copy of a registry's index, {path.name}", path, _deep_size(path))
        for path in (_listed(home.path / "cache" / "registries") if indexes else ())
    ]
    packed = [
        Waste("derived", f"made for a faster start, {path.name}", path, _size(path))
        for path in (_packed(home) if indexes else ())
        if not path.name.startswith(".")
    ]
    return [*_parts(home, all_of_them=True), *copies, *packed]


def _packed(home: Home) -> Iterator[Path]:
    """Weights and tokenizers in the form that loads fastest, and beginnings of such files."""
    for folder in _listed(home.store.base_path("x").parent):
        yield from sorted([*folder.glob("packed*.bin"), *folder.glob(".packed*.bin.*")])


def interrupted(home: Home) -> bool:
    """Whether a writer was killed and left what the next one puts right; or is at work now."""
    return any(p.exists() for p in (home.journal, home.staging, home.path / "owner.json"))


def parts_of(home: Home) -> list[Waste]:
    """Unfinished downloads, whoever is at work on them."""
    from mbpm.fetch.parts import CHUNKS, PART, on_disk

    return [
        Waste("part", _of(p), p, on_disk(p) if p.suffix == PART else _deep_size(p))
        for p in _listed(home.store.parts)
        if p.suffix != CHUNKS
    ]


def _documents(home: Home, keeping: set[str]) -> Iterator[Waste]:
    store = home.store
    for kind in ("pack", "base"):
        folder = store.pack_path("x").parent if kind == "pack" else store.base_path("x").parent
        for path in _listed(folder):
            if path.name not in keeping:
                title = path.name[:12]
                with suppress(IntegrityError):
                    if kind == "pack":
                        manifest = store.manifest(path.name)
                        title = f"{manifest.name} {manifest.version}"
                    else:
                        title = f"base {store.card(path.name).name}"
                yield Waste("pack" if kind == "pack" else "base", title, path, _copied(path))


def _blobs(home: Home, keeping: set[str]) -> Iterator[Waste]:
    for folder in _listed(home.store.blob_path("xx").parent.parent):
        for path in _listed(folder):
            if path.name not in keeping:
                yield Waste("blob", path.name[:16], path, _size(path))


def _parts(home: Home, *, all_of_them: bool) -> Iterator[Waste]:
    from mbpm.fetch.parts import CHUNKS, PART, strays, unfinished

    for found in unfinished(home.store.parts):
        done = len(found.key) == 64 and home.store.blob_path(found.key).is_file()
        if all_of_them or done or found.idle_seconds > PARTS_SECONDS:
            yield Waste("part", _of(found.path), found.path, found.disk_bytes)
    for path in strays(home.store.parts):
        yield Waste("part", _of(path), path, _size(path))
    # wheels that wait to be unpacked, and the hub's folders
    for path in _listed(home.store.parts):
        idle = _age(path) > (FOREIGN_SECONDS if all_of_them else PARTS_SECONDS)
        if path.suffix not in (PART, CHUNKS) and idle:
            yield Waste("part", _of(path), path, _deep_size(path))


def _of(path: Path) -> str:
    return f"unfinished download {path.name.split('.')[0][:16]}"


def _derived(home: Home) -> Iterator[Waste]:
    from mbpm.triggers import current_files

    wanted = current_files(home)
    for path in _listed(home.derived):
        if path not in wanted:
            yield Waste("derived", path.name, path, _size(path))


def _leftovers(home: Home) -> Iterator[Waste]:
    """Temporary files of killed processes."""
    profiles = [home.with_profile(p).root for p in home.profiles()]
    for folder in (*profiles, *(p / "generations" for p in profiles)):
        for path in _listed(folder):
            if path.name.startswith(".") and path.is_file():
                # nobody else writes the writer's own files while `free` holds the lock
                own = folder.name == "generations" or path.name.split(".")[1] in _WRITERS_OWN
                if own or _age(path) > FOREIGN_SECONDS:
                    yield Waste("leftover", path.name, path, _size(path))
    for path in _packed(home):
        if path.name.startswith(".") and _age(path) > FOREIGN_SECONDS:
            yield Waste("leftover", path.name, path, _size(path))
    for profile in map(home.with_profile, home.profiles()):
        with suppress(IntegrityError, NotFoundError):
            counts = profile.current().number
            for number in profile.numbers():
                if number > counts:
                    path = profile.generation_path(number)
                    yield Waste("leftover", f"generation {number}", path, _size(path))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _age(path: Path) -> float:
    from mbpm.fetch.parts import since

    try:
        return since(path.stat().st_mtime)
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _deep_size(path: Path) -> int:
    return sum(_size(p) for p in path.rglob("*")) if path.is_dir() else _size(path)


def _copied(folder: Path) -> int:
    """Bytes of a folder's files that are no links to the store."""
    total = 0
    for path in _listed(folder):
        with suppress(OSError):
            found = path.stat()
            total += found.st_size if found.st_nlink == 1 else 0
    return total
