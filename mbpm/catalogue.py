"""What can be installed: packs and bases of all registries, and which registry decides."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.offers import BaseOffer, Candidate, Origin, line_of, read_local
from mbpm.registries import origins
from mbpm.registries.folder import BUNDLED, FolderRegistry
from registry_index import bundled
from registry_index.tree import CONFIG_FILE, Registry
from specs.errors import IntegrityError, MbpmError, NotFoundError, UsageError
from specs.pack_toml import PACK_TOML

if TYPE_CHECKING:
    from mbpm.fetch.network import Network
    from mbpm.home import Home
    from mbpm.registries.source import Source
    from specs.generation import InstalledPack

__all__ = ["BaseOffer", "Candidate", "Catalogue", "Origin", "line_of", "read_local"]


class Catalogue:
    """The registries of one command."""

    def __init__(self, home: Home, given: Sequence[Source], known: Sequence[Source]) -> None:
        self._home = home
        self.given = given
        """Named on the command line or by a project, in that order."""
        self._known = known
        """The others, the one with the highest priority first."""

    @classmethod
    def open(cls, home: Home, network: Network, registries: Sequence[str]) -> Catalogue:
        """The registries of a home and of a command line.

        Args:
            home: Where registries are configured and caches live.
            network: The way to remote ones.
            registries: Names, directories or addresses to look at first.

        Raises:
            UsageError: one of them is an address.
        """
        given = [FolderRegistry(Registry(root)) for root in registry_roots(registries)]
        known = [FolderRegistry(bundled(), BUNDLED)]
        there = {s.label for s in (*given, *known)}
        # a directory that packs came from goes on providing what their new versions require
        for label in dict.fromkeys(p.registry for p in home.current().packs):
            if label not in there and (found := _directory(label)) is not None:
                known.append(found)
        return cls(home, given, known)

    def names(self) -> list[str]:
        """All pack names, sorted."""
        return sorted({name for source in self._all() for name in source.names()})

    def candidates(self, name: str) -> Sequence[Candidate]:
        """The versions of a pack, oldest first; yanked ones too.

        They come from a registry named on the command line that has it, else from the one that
        first provided the name, else from the one with the highest priority that has it.

        Raises:
            NotFoundError: no registry knows it, and the hint names one that sounds alike; or the
                one that provided it does not have it any more.
            UsageError: not a pack's name.
        """
        for source in self.given:
            if found := _offered(source, name):
                return found
        label = self._bound.get(name)
        if label is not None:
            return self._of(label, name)
        for source in self._known:
            if found := _offered(source, name):
                return found
        raise NotFoundError(f"no pack `{name}` in {self.describe()}", hint=self._alike(name))

    def _of(self, label: str, name: str) -> Sequence[Candidate]:
        source = self.source(label)
        if source is None:
            raise NotFoundError(
                f"`{name}` came from the registry {label}, which is not there any more",
                hint="`--registry` names another to take it from",
            )
        found = _offered(source, name)
        if not found:
            raise NotFoundError(
                f"`{name}` came from the registry {label}, which does not have it any more",
                hint="`--registry` names another to take it from",
            )
        return found

    @cached_property
    def _bound(self) -> dict[str, str]:
        """Name -> label of the registry it is taken from."""
        found = origins.read(self._home.path)
        for pack in self._home.current().packs:
            if not pack.registry.startswith(origins.LOCAL):
                found[pack.name] = pack.registry
        return found

    def _all(self) -> list[Source]:
        return [*self.given, *self._known]

    def source(self, label: str) -> Source | None:
        """The registry that records and locks call by this label, where it can be had."""
        for source in self._all():
            if source.label == label:
                return source
        return _directory(label)

    def providers(self, name: str) -> Sequence[str]:
        """Names of packs of which some version provides or replaces `name`."""
        return list(dict.fromkeys(p for source in self._all() for p in source.providers(name)))

    def find(self, record: InstalledPack) -> Candidate | None:
        """The very version a record names: from where it came, else from any registry."""
        if record.registry.startswith(origins.LOCAL):
            kind, _, path = record.registry.partition(" ")
            with suppress(MbpmError, OSError):
                candidate = read_local(Path(path))
                if kind in ("folder", "archive") and candidate.line.manifest == record.manifest:
                    return candidate
        first = self.source(record.registry)
        for source in [*([first] if first else []), *self._all()]:
            with suppress(NotFoundError, IntegrityError):
                for line in source.lines(record.name):
                    if line.manifest == record.manifest:
                        return Candidate(line, source)
        return None

    def _alike(self, name: str) -> str:
        if (Path(name) / PACK_TOML).is_file():
            return f"`mbpm install ./{name}` installs the folder"
        close = difflib.get_close_matches(name, self.names(), n=1)
        if close:
            return f"did you mean `{close[0]}`?"
        return "`mbpm search` lists the packs there are"

    def describe(self) -> str:
        """The registries, for messages."""
        labels = [f"`{s.label}`" for s in self._all()]
        return ("the registry " if len(labels) == 1 else "the registries ") + ", ".join(labels)

    def bases(self) -> Sequence[BaseOffer]:
        """All bases, the bundled registry's first: what it says of a base is trusted."""
        offers: dict[str, BaseOffer] = {}
        for source in sorted(self._all(), key=lambda s: s.label != BUNDLED):
            for offer in source.bases():
                offers.setdefault(offer.card.name, offer)
        return list(offers.values())

    def base(self, name: str) -> BaseOffer:
        """The base called `name`.

        Raises:
            NotFoundError: there is none.
        """
        offers = {o.card.name: o for o in self.bases()}
        if name in offers:
            return offers[name]
        close = difflib.get_close_matches(name, offers, n=1)
        hint = f"did you mean `{close[0]}`?" if close else "`mbpm base list` shows the bases"
        raise NotFoundError(f"no base `{name}` in {self.describe()}", hint=hint)


def _directory(label: str) -> FolderRegistry | None:
    root = Path(label)
    if root.is_absolute() and (root / CONFIG_FILE).is_file():
        return FolderRegistry(Registry(root))
    return None


def _offered(source: Source, name: str) -> list[Candidate]:
    try:
        return [Candidate(line, source) for line in source.lines(name)]
    except NotFoundError:
        # a registry that is not there at all must not pass for one without the pack
        source.check()
        return []


def registry_roots(directories: Sequence[str] | None) -> list[Path]:
    """The directories given as `--registry`.

    Raises:
        UsageError: one of them is an address.
    """
    roots = []
    for text in directories or ():
        if "://" in text:
            raise UsageError(
                f"`{text}` is an address, and a registry here is a directory",
                hint="name a directory, such as a checkout or a mounted share",
            )
        roots.append(Path(text).expanduser())
    return roots
