"""A home: everything one user has installed.

    current                 the number of the generation that counts
    generations/N.json      one complete state each
    store/                  the bytes (mbpm/store.py)
    staging/                work in progress, worthless to anyone else
    lock, owner.json        the one writer at a time (mbpm/lock.py)
    journal.json            what that writer is doing (mbpm/transaction.py)

Reading takes no lock: `current` is replaced whole, and what a generation names stays in place for
as long as it counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from specs.errors import IntegrityError, NotFoundError

if TYPE_CHECKING:
    from mbpm.store import Store
    from specs.generation import Generation, InstalledBase, InstalledPack

DEFAULT_BASE = "smollm2-135m"
_MEND = "`mbpm doctor` tells what is damaged and how to mend it"


class Home:
    """A home folder; making one reads and writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def staging(self) -> Path:
        """Where folders are built before they get their final name."""
        return self.path / "staging"

    @property
    def store(self) -> Store:
        """The bytes."""
        from mbpm.store import Store

        return Store(self.path / "store", self.staging)

    @property
    def pointer(self) -> Path:
        """The file that holds the number of the generation that counts."""
        return self.path / "current"

    @property
    def journal(self) -> Path:
        """What a writer is doing right now, or was doing when it was killed."""
        return self.path / "journal.json"

    def generation_path(self, number: int) -> Path:
        """The file of one generation."""
        return self.path / "generations" / f"{number}.json"

    def current(self) -> Generation:
        """The generation that counts; number 0, empty, where nothing was ever installed.

        Raises:
            IntegrityError: the files that say so are damaged.
        """
        from specs.generation import Generation

        try:
            text = self.pointer.read_text("ascii").strip()
        except (FileNotFoundError, NotADirectoryError):
            return Generation(number=0, created="", command="")
        except UnicodeDecodeError:
            text = ""
        if not text.isdigit():
            raise IntegrityError(f"{self.pointer}: does not hold a generation's number", hint=_MEND)
        file = self.generation_path(int(text))
        try:
            raw = file.read_bytes()
        except FileNotFoundError:
            raise IntegrityError(
                f"{file}: is missing, and it is the current one", hint=_MEND
            ) from None
        return Generation.parse(raw, str(file))

    def pack_dir(self, pack: InstalledPack) -> Path:
        """The complete folder of an installed pack.

        Raises:
            IntegrityError: somebody removed it.
        """
        folder = self.store.pack_path(pack.manifest)
        if not folder.is_dir():
            raise IntegrityError(
                f"{folder}: the files of {pack.name} {pack.version} are missing",
                hint=f"`mbpm install {pack.name} --reinstall` brings them back",
            )
        return folder

    def base_dir(self, base: InstalledBase) -> Path:
        """The complete folder of an installed base; raises as `pack_dir` does."""
        folder = self.store.base_path(base.card)
        if not folder.is_dir():
            raise IntegrityError(
                f"{folder}: the files of base {base.name} are missing",
                hint=f"`mbpm base install {base.name} --reinstall` brings them back",
            )
        return folder

    def pack_dirs(self) -> list[Path]:
        """The folders of all installed packs, by name."""
        packs = sorted(self.current().packs, key=lambda p: p.name)
        return [self.pack_dir(p) for p in packs]

    def default_base(self) -> InstalledBase:
        """The base to use when none is named.

        Raises:
            NotFoundError: none is installed.
        """
        generation = self.current()
        if base := generation.base(DEFAULT_BASE):
            return base
        if generation.bases:
            return generation.bases[0]
        raise NotFoundError(
            "no base is installed", hint=f"`mbpm base install {DEFAULT_BASE}` installs the default"
        )
