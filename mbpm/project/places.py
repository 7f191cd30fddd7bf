"""What registries are called in mbpm.toml and mbpm.lock, and what they are called elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from specs.errors import NotFoundError
from specs.project import BUNDLED, PROJECT_FILE, is_address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from specs.project import Project


class Places:
    """The registries of a project, whose relative paths are relative to its folder."""

    def __init__(self, folder: Path, project: Project) -> None:
        self._folder = folder
        self._aliases = project.registries
        self._pinned = [w.registry for w in project.packs.values() if w.registry]
        self._relative = {
            self._whole(text): text
            for text in (*project.registries.values(), *self._pinned)
            if is_address(text) and "://" not in text and not Path(text).expanduser().is_absolute()
        }

    @property
    def named(self) -> list[str]:
        """The registries as mbpm.toml names them, those of `[registries]` first, in their order."""
        return list(dict.fromkeys([*self._aliases, *self._pinned]))

    def label_of(self, text: str, home: Path) -> str:
        """What records call a registry that mbpm.toml names so.

        Raises:
            NotFoundError: it is called by a name that neither mbpm.toml nor this home knows.
            UsageError: it is no address.
        """
        from mbpm.registries import config

        text = self._aliases.get(text, text)
        if text == BUNDLED:
            return BUNDLED
        if not is_address(text):
            try:
                return config.entry_of(config.read(home), text).address
            except NotFoundError as error:
                raise NotFoundError(
                    f"{PROJECT_FILE} names the registry `{text}`: {error.message}",
                    hint=f'`{text} = "https://…"` below `[registries]` says where it is',
                ) from None
        return config.address_of(text if "://" in text else self._whole(text))

    def _whole(self, text: str) -> str:
        # not resolved: a link in the way is part of what the person calls it
        return os.path.normpath(self._folder / Path(text).expanduser())

    def label(self, locked: str) -> str:
        """What the lock calls a registry, as records call it."""
        if locked == BUNDLED or "://" in locked:
            return locked
        return self._whole(locked)

    def labels(self, locked: Iterable[str]) -> list[str]:
        """Those labels that `Catalogue.open` takes, each once."""
        return [t for t in dict.fromkeys(map(self.label, locked)) if t != BUNDLED]

    def locked(self, label: str) -> str:
        """A label as the lock has it: relative where mbpm.toml says so, or inside the project."""
        if label == BUNDLED or "://" in label:
            return label
        path = Path(os.path.normpath(label))
        relative = self._relative.get(str(path))
        if relative is None:
            try:
                relative = path.relative_to(self._folder).as_posix()
            except ValueError:
                return label
        relative = Path(relative).as_posix()
        return relative if relative.startswith("..") else f"./{relative}".replace("/./", "/")


def as_written(text: str, folder: Path, project: Project) -> str:
    """A registry given on the command line, as mbpm.toml in `folder` is to have it."""
    if text in project.registries or text == BUNDLED:
        return text
    if "://" in text:
        return text.rstrip("/")
    path = Path(text).expanduser()
    if not is_address(text) and not path.is_dir():
        return text
    if path.is_absolute() and not path.is_relative_to(folder):
        return str(path)
    relative = Path(os.path.relpath(path.absolute(), folder)).as_posix()
    return relative if relative.startswith("..") else f"./{relative}"
