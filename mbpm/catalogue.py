"""What can be installed: packs and bases of all registries, and which registry decides."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.offers import (
    BaseOffer,
    Candidate,
    Origin,
    UnknownPackError,
    line_of,
    offered,
    read_local,
    read_local_base,
)
from mbpm.registries import config, origins
from mbpm.registries.config import Known
from registry_index.tree import CONFIG_FILE, Registry
from specs.base_card import CARD_FILE
from specs.errors import AuthError, IntegrityError, MbpmError, NetworkError, NotFoundError
from specs.pack_toml import PACK_TOML
from specs.registries import BUNDLED, is_url

if TYPE_CHECKING:
    from mbpm.fetch.network import Network
    from mbpm.home import Home
    from mbpm.output import Output
    from mbpm.registries.query import Query
    from mbpm.registries.source import Source
    from specs.generation import InstalledBase, InstalledPack
    from specs.summary import PackSummary

__all__ = ["BaseOffer", "Candidate", "Catalogue", "Origin", "line_of", "read_local"]


class Catalogue:
    """The registries of one command."""

    def __init__(
        self,
        home: Home,
        network: Network,
        given: Sequence[Known],
        known: Sequence[Known],
        out: Output | None = None,
    ) -> None:
        self._home = home
        self._network = network
        self._out = out
        self._opened: dict[str, Source] = {}
        self._silent: set[str] = set()
        self._given = [self._open(k) for k in given]
        """Named on the command line."""
        self._known = [self._open(k) for k in known]
        """The others, the one with the highest priority first."""

    @classmethod
    def open(
        cls,
        home: Home,
        network: Network,
        registries: Sequence[str],
        out: Output | None = None,
    ) -> Catalogue:
        """The registries of a home and of a command line; nothing is asked yet.

        Args:
            home: Where registries are configured and caches live.
            network: The way to remote ones.
            registries: Names, directories or addresses to look at first.
            out: Told of registries that cannot be reached.

        Raises:
            UsageError: the list of registries is malformed, or one of them is no address.
        """
        configured = config.in_order(config.read(home.path))
        given = [config.named(text, configured) for text in dict.fromkeys(registries)]
        known = [k for k in configured if k not in given]
        there = {k.address for k in (*given, *known)}
        # a directory that packs came from goes on providing what their new versions require
        for label in dict.fromkeys(p.registry for p in home.current().packs):
            if label not in there and _is_registry(label):
                known.append(Known(Path(label).name, label, 0))
        return cls(home, network, given, known, out)

    def _open(self, known: Known) -> Source:
        if known.address in self._opened:
            return self._opened[known.address]
        source: Source
        if known.remote:
            from mbpm.registries.remote import RemoteRegistry

            source = RemoteRegistry(
                known, self._home.path, self._network, warn=self._warn, note=self._note
            )
        else:
            from mbpm.registries.folder import FolderRegistry
            from registry_index import bundled

            there = known.address == BUNDLED
            registry = bundled() if there else Registry(Path(known.address))
            source = FolderRegistry(registry, known.address)
        self._opened[known.address] = source
        return source

    def _warn(self, text: str) -> None:
        if self._out is not None:
            self._out.warn(text)

    def _note(self, text: str) -> None:
        if self._out is not None:
            self._out.note(text)

    def sources(self) -> list[Source]:
        """The registries, those that were named first."""
        return [*self._given, *self._known]

    @contextmanager
    def _spared(self, source: Source) -> Iterator[None]:
        """Do without a registry that cannot be asked, unless it was named, and say so once."""
        try:
            yield
        except (NetworkError, AuthError, NotFoundError) as error:
            if source in self._given:
                raise
            if source.label not in self._silent:
                self._silent.add(source.label)
                self._warn(f"{error.message}; going on without this registry")

    def describe(self) -> str:
        """The registries, for messages."""
        labels = [f"`{self.called(s.label)}`" for s in self.sources()]
        return ("the registry " if len(labels) == 1 else "the registries ") + ", ".join(labels)

    def called(self, label: str) -> str:
        """The name a registry is configured under; else what its label says."""
        return config.display_names(self._home.path, [label])[label]

    # packs

    def candidates(self, name: str) -> Sequence[Candidate]:
        """The versions of a pack, oldest first; yanked ones too.

        They come from a registry named on the command line that has it, else from the one that
        first provided the name, else from the one with the highest priority that has it. A registry
        that cannot be asked is an error: another one's pack of this name is not the same.

        Raises:
            NotFoundError: no registry knows it, and the hint names one that sounds alike; or the
                one that provided it does not have it any more, or is not configured any more.
            UsageError: not a pack's name.
            NetworkError, AuthError: a registry that may have it cannot be asked.
        """
        for source in self._given:
            if (found := offered(source, name)) is not None:
                return found
        label = self._bound.get(name)
        if label is not None:
            return self._from_its_own(label, name)
        unsure: Source | None = None
        for source in self._known:
            if (found := offered(source, name)) is not None:
                if unsure is not None:
                    raise self._may_have(unsure, name, source)
                return found
            if source.stale:
                unsure = unsure or source
        raise UnknownPackError(f"no pack `{name}` in {self.describe()}", lambda: self._alike(name))

    def _may_have(self, unsure: Source, name: str, other: Source) -> NetworkError:
        first, second = self.called(unsure.label), self.called(other.label)
        return NetworkError(
            f"`{name}` is not in what is cached of {first}, which comes before {second} and cannot "
            "be asked now",
            hint=f"`--registry {second}` takes it from there, if that is what you want",
        )

    def _from_its_own(self, label: str, name: str) -> Sequence[Candidate]:
        hint = f"`--registry NAME` takes `{name}` from another registry, if that is what you want"
        source = self.source(label)
        if source is None:
            why = "which is not configured any more" if is_url(label) else "which is gone"
            if is_url(label):
                hint = f"`mbpm registry add NAME {label}`; or {hint}"
            raise NotFoundError(f"`{name}` came from the registry {label}, {why}", hint=hint)
        found = offered(source, name)
        if found is None:
            raise NotFoundError(
                f"`{name}` came from the registry {self.called(label)}, which does not have it any "
                "more",
                hint=hint,
            )
        return found

    @cached_property
    def _bound(self) -> dict[str, str]:
        """Name -> label of the registry it is taken from."""
        found = origins.read(self._home)
        for pack in self._home.current().packs:
            if not pack.registry.startswith(origins.LOCAL):
                found[pack.name] = pack.registry
        return found

    def source(self, label: str) -> Source | None:
        """The registry that records and locks call by this label, if it may still be asked."""
        if label in self._opened:
            return self._opened[label]
        if _is_registry(label):
            return self._open(Known(Path(label).name, label, 0))
        return None

    def prefetch(self, names: Sequence[str]) -> None:
        """Get ready for `candidates` of these packs and of what they require, all at once."""
        for source in self.sources():
            with self._spared(source):
                source.prefetch(names)

    def providers(self, name: str) -> Sequence[str]:
        """Names of packs of which some version provides or replaces `name`.

        Where a registry has a pack of that very name, only its own packs take its place, and those
        of registries named on the command line.
        """
        found: dict[str, None] = {}
        for source in self.sources():
            with self._spared(source):
                found |= dict.fromkeys(source.providers(name))
        owner = self._owner(name) if found else None
        if owner is None:
            return list(found)
        trusted = {owner, *(s.label for s in self._given)}
        return [n for n in found if self._owner(n) in trusted]

    def _owner(self, name: str) -> str | None:
        """The label of the registry a name belongs to."""
        source = self._deciding(name)
        return self._bound.get(name) if source is None else source.label

    def find(self, record: InstalledPack) -> Candidate | None:
        """The very version a record names: from where it came, else from any registry there is.

        By its digest it is the same from anywhere. A server that is not configured any more is
        not asked.

        Raises:
            NetworkError, AuthError: a registry that may have it cannot be asked.
        """
        kind, _, path = record.registry.partition(" ")
        if kind in ("folder", "archive", "bundle") and path:
            with suppress(MbpmError, OSError):
                candidate = _find_in(kind, Path(path), record)
                if candidate is not None and candidate.line.manifest == record.manifest:
                    return candidate
        failure: MbpmError | None = None
        own = self.source(record.registry)
        for source in dict.fromkeys([*([own] if own else []), *self.sources()]):
            try:
                for line in source.lines(record.name):
                    if line.manifest == record.manifest:
                        return Candidate(line, source)
            except (NotFoundError, IntegrityError):
                continue
            except (NetworkError, AuthError) as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return None

    # looking around

    def names(self) -> list[str]:
        """All pack names, sorted."""
        found: set[str] = set()
        for source in self.sources():
            with self._spared(source):
                found.update(source.names())
        return sorted(found)

    def search(
        self, query: Query, limit: int | None = None
    ) -> tuple[list[tuple[PackSummary, str]], int]:
        """The packs a query means, each from the registry it would be taken from.

        Returns:
            Packs with the labels of their registries, the best ones first, and how many there are.
        """
        found: list[tuple[tuple[int, int], PackSummary, str]] = []
        total = 0
        for source in self.sources():
            with self._spared(source):
                answer = source.search(query, limit)
                mine = [p for p in answer.packs if self._deciding(p.name) is source]
                total += answer.total - (len(answer.packs) - len(mine))
                for place, pack in enumerate(mine):
                    found.append(((query.tier(pack.name), place), pack, source.label))
        found.sort(key=lambda f: (f[0], f[1].name))
        return [(pack, label) for _, pack, label in found[:limit]], total

    def summaries(self, names: Sequence[str]) -> list[tuple[PackSummary, str]]:
        """The packs of these names in short, each from the registry it would be taken from."""
        found = []
        for source in self.sources():
            with self._spared(source):
                for pack in source.summaries(names):
                    if self._deciding(pack.name) is source:
                        found.append((pack, source.label))
        return sorted(found, key=lambda f: f[0].name)

    def _deciding(self, name: str) -> Source | None:
        """The registry a name would be taken from."""
        label = self._bound.get(name)
        for source in self._given:
            if source.having([name]):
                return source
        if label is not None:
            return self.source(label)
        for source in self._known:
            with self._spared(source):
                if source.having([name]):
                    return source
        return None

    def _alike(self, name: str) -> str:
        from mbpm.registries.alike import close

        if (Path(name) / PACK_TOML).is_file():
            return f"`mbpm install ./{name}` installs the folder"
        found = close(name, self.sources())
        return f"did you mean `{found}`?" if found else "`mbpm search` lists the packs there are"

    # bases

    def _bases_first(self) -> list[Source]:
        """The bundled registry first: what it says of a base is trusted."""
        return sorted(self.sources(), key=lambda s: s.label != BUNDLED)

    def bases(self) -> Sequence[BaseOffer]:
        """All bases, each of the first registry that has one of its name."""
        offers: dict[str, BaseOffer] = {}
        for source in self._bases_first():
            with self._spared(source):
                for offer in source.bases():
                    offers.setdefault(offer.card.name, offer)
        return list(offers.values())

    def find_base(self, record: InstalledBase) -> BaseOffer | None:
        """The very base a record names, by its fingerprint: also from where it came."""
        for offer in self.bases():
            if offer.card.fingerprint == record.fingerprint:
                return offer
        if (source := self.source(record.registry)) is not None:
            with self._spared(source):
                for offer in source.bases():
                    if offer.card.fingerprint == record.fingerprint:
                        return offer
        kind, _, path = record.registry.partition(" ")
        if kind == "folder" and path:
            with suppress(MbpmError, OSError):
                local = read_local_base(Path(path))
                if local.card.fingerprint == record.fingerprint:
                    return local
        return None

    def base(self, name: str) -> BaseOffer:
        """The base called `name`.

        Raises:
            NotFoundError: there is none.
            NetworkError, AuthError: a registry that comes first cannot be asked.
        """
        there = []
        for source in self._bases_first():
            for offer in source.bases():
                if offer.card.name == name:
                    return offer
                there.append(offer.card.name)
        close = difflib.get_close_matches(name, there, n=1)
        hint = f"did you mean `{close[0]}`?" if close else "`mbpm base list` shows the bases"
        if (Path(name) / CARD_FILE).is_file():
            hint = f"`mbpm base install ./{name}` installs the folder"
        raise NotFoundError(f"no base `{name}` in {self.describe()}", hint=hint)


def _find_in(kind: str, path: Path, record: InstalledPack) -> Candidate | None:
    """What a folder, an archive or a bundle has for a record."""
    if kind != "bundle":
        return read_local(path)
    from mbpm.bundles import BundleCatalogue
    from registry_index.bundle import read_bundle

    return BundleCatalogue([read_bundle(path)]).find(record)


def _is_registry(label: str) -> bool:
    root = Path(label)
    return root.is_absolute() and (root / CONFIG_FILE).is_file()
