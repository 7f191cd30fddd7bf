"""A home: everything one user has installed.

    current                 the number of the generation that counts
    generations/N.json      one complete state each
    origins.json            which registry a name is taken from (mbpm/registries/origins.py)
    profiles/NAME/          the same three for each profile but `default`
    store/                  the bytes of all profiles (mbpm/store.py)
    derived/                what triggers made of installed packs (mbpm/triggers.py)
    staging/                work in progress, worthless to anyone else
    lock, owner.json        the one writer at a time (mbpm/lock.py)
    journal.json            what that writer is doing (mbpm/transaction.py)
    registries.toml, tokens.toml, cache/    registries (mbpm/registries)

Reading takes no lock: `current` is replaced whole, and what a generation names stays in place for
as long as it counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from specs.errors import IntegrityError, MbpmError, NotFoundError, UsageError

if TYPE_CHECKING:
    from mbpm.store import Store
    from specs.generation import Generation, InstalledBase, InstalledPack

DEFAULT_BASE = "smollm2-135m"
DEFAULT_PROFILE = "default"


class Home:
    """A home folder; making one reads and writes nothing."""

    def __init__(self, path: Path, profile: str = DEFAULT_PROFILE) -> None:
        """
        Raises:
            UsageError: not a profile's name.
        """
        self.path = path
        self.profile = profile
        if profile != DEFAULT_PROFILE:
            from specs.names import check_name

            try:
                check_name(profile)
            except ValueError as error:
                raise UsageError(f"profile {error}") from None

    @property
    def root(self) -> Path:
        """Where the profile's generations are."""
        if self.profile == DEFAULT_PROFILE:
            return self.path
        return self.path / "profiles" / self.profile

    def with_profile(self, profile: str) -> Home:
        """Another profile of the same home."""
        return Home(self.path, profile)

    def profiles(self) -> list[str]:
        """The profiles that hold or held something, the default one first."""
        try:
            names = sorted(p.name for p in (self.path / "profiles").iterdir() if p.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            names = []
        return [DEFAULT_PROFILE, *names]

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
        return self.root / "current"

    @property
    def journal(self) -> Path:
        """What a writer is doing right now, or was doing when it was killed."""
        return self.path / "journal.json"

    def generation_path(self, number: int) -> Path:
        """The file of one generation."""
        return self.root / "generations" / f"{number}.json"

    @property
    def derived(self) -> Path:
        """Where triggers put what they make."""
        return self.path / "derived"

    def numbers(self) -> list[int]:
        """The numbers of the profile's generations that are kept, newest first."""
        try:
            names = [p.stem for p in (self.root / "generations").iterdir() if p.suffix == ".json"]
        except (FileNotFoundError, NotADirectoryError):
            names = []
        return sorted((int(n) for n in names if n.isdecimal()), reverse=True)

    def generation(self, number: int) -> Generation:
        """One generation of the profile; number 0 is the empty one before the first change.

        Raises:
            NotFoundError: it is not kept.
            IntegrityError: it is damaged.
        """
        from specs.generation import Generation

        if number == 0:
            return Generation(number=0, created="", command="")
        file = self.generation_path(number)
        try:
            found = Generation.read(file)
        except (FileNotFoundError, NotADirectoryError):
            raise _no_generation(number) from None
        except IsADirectoryError:
            raise IntegrityError(f"{file}: is a folder") from None
        if found.number != number:
            raise IntegrityError(f"{file}: says that it is generation {found.number}")
        return found

    def past(self, number: int) -> Generation:
        """A generation that counts or once did; raises as `generation`.

        One that a killed command wrote and that never counted is none.
        """
        if number > self.current().number:
            raise _no_generation(number)
        return self.generation(number)

    def last_readable(self) -> int:
        """The newest generation that can be read, whatever `current` says; 0 where none can."""
        for number in self.numbers():
            with suppress(MbpmError, OSError):
                return self.generation(number).number
        return 0

    def generations(self) -> Iterator[Generation]:
        """The generations of the profile that count or counted, newest first, but damaged ones."""
        counts = self.current().number
        for number in self.numbers():
            if number <= counts:
                with suppress(IntegrityError, NotFoundError):
                    yield self.generation(number)

    def current(self) -> Generation:
        """The generation that counts; number 0, empty, where nothing was ever installed.

        Raises:
            IntegrityError: the files that say so are damaged.
        """
        try:
            text = self._pointed()
        except (UnicodeDecodeError, IsADirectoryError):
            text = ""
        if text is None:
            return self.generation(0)
        if not text.isdecimal() or len(text) > 15:
            raise IntegrityError(
                f"{self.pointer}: does not hold a generation's number", hint=self._mend()
            )
        try:
            return self.generation(int(text))
        except NotFoundError:
            file = self.generation_path(int(text))
            raise IntegrityError(
                f"{file}: is missing, and it is the current one", hint=self._mend()
            ) from None
        except IntegrityError as error:
            raise IntegrityError(error.message, hint=error.hint or self._mend()) from None

    def _pointed(self) -> str | None:
        """What `current` says; None where nothing was ever installed."""
        for _ in range(2):
            try:
                return self.pointer.read_text("ascii").strip()
            except NotADirectoryError:
                from mbpm.files import no_folder

                raise no_folder(self.root) from None
            except FileNotFoundError:
                pass
            numbers = self.numbers()
            # as much as this a first change has written before it counts, at work or killed
            if not numbers or (numbers == [1] and self.journal.exists()):
                return None
            # once `current` is there it stays: either it came just now, or somebody removed it
        raise IntegrityError(
            f"{self.pointer}: is missing, and generations are there", hint=self._mend()
        )

    def _mend(self) -> str:
        option = "" if self.profile == DEFAULT_PROFILE else f"--profile {self.profile} "
        return f"`mbpm {option}repair` goes back to the last state that can be read"

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


def _no_generation(number: int) -> NotFoundError:
    return NotFoundError(
        f"there is no generation {number}", hint="`mbpm history` lists the generations there are"
    )
