"""From an author's folder to a manifest."""

from __future__ import annotations

from pathlib import Path

from registry_index.archive import SUFFIX
from registry_index.contents import check_contents
from specs.blobs import Blob
from specs.errors import IntegrityError, NotFoundError
from specs.manifest import MANIFEST_FILE, PACK_FILES, REQUIRED_FILES, Manifest, PackDescription
from specs.pack_toml import PACK_TOML, read_pack_toml

MAX_FOLDER_ENTRIES = 1000
_LEFTOVER_FOLDERS = frozenset(["checkpoints", "evaluation"])
_LEFTOVER_SUFFIXES = frozenset([".png", ".svg", SUFFIX])


def build_manifest(folder: Path, *, measuring: bool = False) -> tuple[Manifest, dict[str, Path]]:
    """Check a pack folder and describe it.

    The folder holds pack.toml and the files of `specs.manifest.PACK_FILES`. What work on a pack
    leaves beside them (`checkpoints/`, `evaluation/`, pictures, archives, hidden files) is not part
    of it; anything else is refused, so that nothing is forgotten silently.

    Args:
        measuring: As in `registry_index.contents.check_contents`.

    Returns:
        The manifest, and file name in the pack -> file in the folder. The attach proof needs a
        base: `registry_index.contents.prove_attach`.

    Raises:
        NotFoundError: no such folder, no pack.toml, or a file that every pack has is missing.
        IntegrityError: a malformed file; the message names it and the rule.
    """
    described = read_pack_toml(folder)
    files = _pack_files(folder)
    values = {name: getattr(described, name) for name in PackDescription.model_fields}
    blobs = tuple(Blob.of_file(files[name], name) for name in sorted(files))
    manifest = Manifest(**values, blobs=blobs)
    check_contents(manifest, files, measuring=measuring)
    return manifest, files


def _pack_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for number, entry in enumerate(sorted(folder.iterdir())):
        if number >= MAX_FOLDER_ENTRIES:
            raise IntegrityError(f"{folder}: holds more than {MAX_FOLDER_ENTRIES:,} entries")
        name = entry.name
        if name in PACK_FILES:
            if entry.is_symlink() or not entry.is_file():
                raise IntegrityError(f"{entry}: is not a plain file")
            files[name] = entry
        elif not _ignored(entry):
            hint = "a pack holds " + ", ".join(sorted(PACK_FILES)) + "; move other files out"
            if name == MANIFEST_FILE:
                hint = f"`mbpm pack` writes the manifest itself from {PACK_TOML}; remove it"
            raise IntegrityError(f"{entry}: is not a file of a pack", hint=hint)
    if missing := sorted(REQUIRED_FILES - files.keys()):
        raise NotFoundError(
            f"{folder}: `{missing[0]}` is missing",
            hint="`mbpm train` writes every file a pack needs",
        )
    return files


def _ignored(entry: Path) -> bool:
    name = entry.name
    if name == PACK_TOML or name.startswith("."):
        return True
    return name in _LEFTOVER_FOLDERS if entry.is_dir() else entry.suffix in _LEFTOVER_SUFFIXES
