"""The two files of a project: found, read, and replaced whole."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from specs.errors import IntegrityError, MbpmError, NotFoundError
from specs.lockfile import LOCK_FILE, Lock
from specs.model import MAX_DOCUMENT_BYTES, Contract
from specs.project import PROJECT_FILE, Project

LOCK_HINT = f"`mbpm lock` writes {LOCK_FILE} again"
_MARK = re.compile(rb"(<{7}|\|{7}|={7}|>{7})(?: .*)?$")
LEFTOVER_SECONDS = 3600
T = TypeVar("T", bound=Contract)


@dataclass(frozen=True)
class Checkout:
    """A project as it was when the command began."""

    folder: Path
    raw: bytes
    """The bytes of its mbpm.toml."""
    project: Project

    @property
    def file(self) -> Path:
        """Its mbpm.toml."""
        return self.folder / PROJECT_FILE

    @property
    def lock_file(self) -> Path:
        """Its mbpm.lock, which need not exist."""
        return self.folder / LOCK_FILE

    @cached_property
    def raw_lock(self) -> bytes | None:
        """The bytes of its mbpm.lock; None where there is none."""
        try:
            return _read(self.lock_file)
        except FileNotFoundError:
            return None

    def lock(self) -> Lock | None:
        """Its lock; None where there is none.

        Raises:
            IntegrityError: it is damaged, or holds the marks of a merge conflict.
            MbpmError: it has a newer format.
        """
        if self.raw_lock is None:
            return None
        try:
            return _parse(Lock, self.raw_lock, self.lock_file)
        except IntegrityError as error:
            raise IntegrityError(error.message, hint=LOCK_HINT) from None

    def what_is_left_of_lock(self) -> tuple[Lock | None, str | None]:
        """Its lock, to be written again: of a merge conflict one side, of a damaged one nothing.

        Returns:
            What of it can be used, and what is wrong with it in words.

        Raises:
            MbpmError: it has a newer format, so an older mbpm must not replace it.
        """
        try:
            return self.lock(), None
        except IntegrityError as error:
            assert self.raw_lock is not None
            for side in (b"<<<<<<<", b"======="):
                text = _side(self.raw_lock, side)
                if text != self.raw_lock:
                    with suppress(IntegrityError):
                        return Lock.parse_toml(text, shown(self.lock_file)), error.message
            return None, error.message


def open_project(named: Path | None) -> Checkout:
    """The project of a command: the folder named with `--project`, else the nearest upwards.

    Raises:
        NotFoundError: there is none.
        UsageError: its path cannot be written down.
        IntegrityError: its mbpm.toml is not what is expected; MbpmError for a newer format.
    """
    from mbpm.files import recordable

    folder = recordable(_find(named))
    file = folder / PROJECT_FILE
    raw = _read(file)
    return Checkout(folder, raw, _parse(Project, raw, file))


def _find(named: Path | None) -> Path:
    if named is not None:
        folder = named.expanduser().absolute()
        folder = folder.parent if folder.name == PROJECT_FILE else folder
        if (folder / PROJECT_FILE).is_file():
            return folder
        raise NotFoundError(
            f"{named}: is no project, for it has no {PROJECT_FILE}",
            hint=f"`mbpm init {named}` makes it one",
        )
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PROJECT_FILE).is_file():
            return folder
    raise NotFoundError(
        f"there is no {PROJECT_FILE} in {here} nor in any folder above",
        hint="`mbpm init` begins a project here; `--project DIR` names one elsewhere",
    )


def shown(path: Path) -> str:
    """A path as messages name it: from here where it is below, else whole."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(MAX_DOCUMENT_BYTES + 1)


def _parse(kind: type[T], raw: bytes, file: Path) -> T:
    for number, line in enumerate(raw.splitlines(), 1):
        mark = _MARK.match(line)
        if mark is not None and mark[1] in (b"<" * 7, b">" * 7):
            raise IntegrityError(
                f"{shown(file)}: line {number} is the mark of a merge conflict",
                hint=f"settle the conflict in {file.name}",
            )
    return kind.parse_toml(raw, shown(file))


def _side(raw: bytes, wanted: bytes) -> bytes:
    """One side of every conflict, and what both sides have."""
    kept, side = [], None
    for line in raw.splitlines(keepends=True):
        mark = _MARK.match(line.rstrip())
        if mark is not None:
            side = None if mark[1] == b">" * 7 else mark[1]
        elif side in (None, wanted):
            kept.append(line)
    return b"".join(kept)


def write(file: Path, data: bytes, *, before: bytes | None) -> None:
    """Replace a project's file whole.

    Args:
        file: The file.
        data: Its new bytes; where they are the old ones it is not touched.
        before: What it held when it was read; None where it did not exist.

    Raises:
        MbpmError: somebody else changed it since then, or it cannot be written.
    """
    from mbpm.files import write_atomic

    try:
        now = _read(file)
    except FileNotFoundError:
        now = None
    if now != before:
        raise MbpmError(
            f"{shown(file)}: was changed by somebody else in the meantime, and was left as it is",
            hint="run the same command again",
        )
    if data == before:
        return
    try:
        write_atomic(_target(file), data)
    except OSError as error:
        raise _unwritable(file, error) from None
    _sweep(file)


def _sweep(file: Path) -> None:
    """Remove what a killed command left of writing this file, once it can be nobody's any more."""
    for path in file.parent.glob(f".{file.name}.*"):
        with suppress(OSError):
            if (
                re.fullmatch(r"[0-9a-f]{32}", path.name.rpartition(".")[2])
                and time.time() - path.stat().st_mtime > LEFTOVER_SECONDS
            ):
                path.unlink()


def _unwritable(file: Path, error: OSError) -> MbpmError:
    from mbpm.__main__ import explain

    reason = explain(error)
    words = (error.strerror or type(error).__name__).lower()
    return type(reason)(
        f"{shown(file)}: cannot be written ({words}); nothing was changed",
        hint=f"check who owns {file.parent}, and whether it may be written to",
    )


def put_back(file: Path, before: bytes | None) -> None:
    """Undo `write`, where it wrote."""
    from mbpm.files import remove, write_atomic

    try:
        now = _read(file)
    except FileNotFoundError:
        now = None
    if now == before:
        return
    if before is None:
        remove(file)
    else:
        write_atomic(_target(file), before)


def _target(file: Path) -> Path:
    """The file itself where a link stands in its place, so that it stays one."""
    return file.resolve() if file.is_symlink() else file
