"""A pack by what a person calls it: an installed one's name, a pack folder, or an archive."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specs.errors import NotFoundError
from specs.manifest import MANIFEST_FILE

if TYPE_CHECKING:
    from mbpm.state import State
    from specs.generation import InstalledBase
    from specs.manifest import Manifest
    from specs.pack_toml import Gates


@dataclass(frozen=True)
class PackPlace:
    """A pack and where its files are."""

    manifest: Manifest
    place: Path
    """A folder with its manifest and all its files."""
    folder: Path | None
    """The author's folder, where it comes from one."""
    gates: Gates


@contextlib.contextmanager
def opened(state: State, name: str, *, measuring: bool = False) -> Iterator[PackPlace]:
    """The pack called `name`, or the one in the folder or archive of that path.

    Args:
        measuring: Evals in a folder may be of another adapter, since they are made again.

    Raises:
        NotFoundError: there is none.
        IntegrityError: it is damaged.
    """
    from specs.pack_toml import Gates, read_pack_toml

    installed = state.home.current().pack(name)
    if installed is not None:
        manifest = state.home.store.manifest(installed.manifest)
        yield PackPlace(manifest, state.home.pack_dir(installed), None, Gates())
        return
    path = Path(name).expanduser()
    if not path.exists():
        raise NotFoundError(
            f"`{name}` is neither an installed pack nor a folder or archive",
            hint=f"`mbpm install {name}` installs it; `mbpm list` shows what is installed",
        )
    with tempfile.TemporaryDirectory(prefix="mbpm-pack-") as scratch:
        place = Path(scratch)
        folder, gates = None, Gates()
        if path.is_dir():
            from registry_index.packing import build_manifest

            manifest, files = build_manifest(path, measuring=measuring)
            for file, source in files.items():
                shutil.copyfile(source, place / file)
            folder, gates = path, read_pack_toml(path).gates
        else:
            from registry_index.archive import read_archive

            archive = read_archive(path)
            archive.extract(place)
            manifest = archive.manifest
        (place / MANIFEST_FILE).write_bytes(manifest.canonical())
        yield PackPlace(manifest, place, folder, gates)


def base_of(state: State, manifest: Manifest) -> InstalledBase:
    """The installed base a pack was made for.

    Raises:
        NotFoundError: it is not installed, or another one has its name.
    """
    bases = state.home.current().bases
    wanted = manifest.base
    found = next((b for b in bases if b.fingerprint == wanted.fingerprint), None)
    if found is not None:
        return found
    same = next((b for b in bases if b.name == wanted.name), None)
    if same is not None:
        raise NotFoundError(
            f"{manifest.name} was made for the base {wanted.name} ({wanted.fingerprint[:12]}), and "
            f"the one installed under that name is another ({same.fingerprint[:12]})"
        )
    raise NotFoundError(
        f"{manifest.name} was made for the base {wanted.name}, which is not installed",
        hint=f"`mbpm base install {wanted.name}` installs it",
    )
