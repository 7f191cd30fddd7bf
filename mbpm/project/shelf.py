"""Which versions a project may choose from, and what a lock says of the chosen ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from mbpm.project.places import Places
from specs.errors import IntegrityError, MbpmError, NetworkError, NotFoundError, ResolutionError
from specs.lockfile import LOCK_FILE, Lock, LockedBase, LockedBlob, LockedPack
from specs.project import BUNDLED, PROJECT_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from mbpm.catalogue import BaseOffer, Candidate
    from mbpm.registries.source import Source
    from mbpm.state import State
    from specs.project import Project


class Shelf:
    """The registries of a project and of this machine.

    A pack comes from the registry mbpm.toml names for it, else from the one its lock has it from,
    else from the first that has it: those that mbpm.toml names come before those of the machine.
    """

    def __init__(self, state: State, folder: Path, project: Project, old: Lock | None) -> None:
        self._home = state.home
        self._project = project
        self._old = old
        self.any_base = False
        """Whether versions for another base than the one mbpm.toml names are not left out."""
        self._places = Places(folder, project)
        places, home = self._places, self._home.path
        self._labels = {text: places.label_of(text, home) for text in places.named}
        self.catalogue = state.catalogue(
            [label for label in self._labels.values() if label != BUNDLED]
        )

    @cached_property
    def bases(self) -> dict[str, BaseOffer]:
        """Fingerprint -> the base on offer."""
        found: dict[str, BaseOffer] = {}
        for offer in self.catalogue.bases():
            found.setdefault(offer.card.fingerprint, offer)
        return found

    @cached_property
    def base(self) -> BaseOffer | None:
        """The base mbpm.toml names.

        Raises:
            NotFoundError: there is no such base.
        """
        name = self._project.project.base
        return self.catalogue.base(name) if name is not None else None

    def base_of(self, candidate: Candidate) -> BaseOffer:
        """The base of a chosen pack.

        Raises:
            ResolutionError: it is not the one mbpm.toml names.
        """
        line = candidate.line
        offer = self.bases[line.base.fingerprint]
        if self.base is not None and offer.card.fingerprint != self.base.card.fingerprint:
            raise ResolutionError(
                f"{line.name} {line.version} was made for base {line.base.name}, and "
                f"{PROJECT_FILE} wants base {self.base.card.name}",
                hint=f"leave `base` in {PROJECT_FILE} out, or name the other one",
            )
        return offer

    def candidates(self, name: str) -> Sequence[Candidate]:
        """The versions of a pack, as `Catalogue.candidates`; where the project names a base, only
        those for it, if there are any."""
        found = self._candidates(name)
        if self.base is None or self.any_base:
            return found
        fingerprint = self.base.card.fingerprint
        return [c for c in found if c.line.base.fingerprint == fingerprint] or found

    def _candidates(self, name: str) -> Sequence[Candidate]:
        wanted = self._project.packs.get(name)
        if wanted is not None and wanted.registry is not None:
            return self._from(wanted.registry, name)
        locked = self._old.pack(name) if self._old is not None else None
        return self.catalogue.candidates(name) if locked is None else self._as_before(locked)

    def _from(self, registry: str, name: str) -> Sequence[Candidate]:
        """From the registry that mbpm.toml names for it."""
        source = self.catalogue.source(self._labels[registry])
        try:
            if source is None:
                raise NotFoundError(f"there is no registry at {self._labels[registry]}")
            return _offered(source, name)
        except NotFoundError as error:
            raise NotFoundError(
                f"{PROJECT_FILE} wants {name} from `{registry}`: {error.message}", hint=error.hint
            ) from None

    def _as_before(self, locked: LockedPack) -> Sequence[Candidate]:
        """From where the lock has it; from elsewhere only if the very same pack is there too."""
        name = locked.name
        source = self.catalogue.source(self._places.label(locked.registry))
        problem: MbpmError | None = None
        if source is not None:
            try:
                return _offered(source, name)
            except (NotFoundError, NetworkError) as error:
                problem = error
        with suppress(NotFoundError):
            elsewhere = self.catalogue.candidates(name)
            # and nothing newer from there, before the lock says that it comes from there
            if same := [c for c in elsewhere if c.line.manifest == locked.manifest]:
                return same
        if isinstance(problem, NetworkError):
            raise problem
        why = problem.message if problem is not None else "this registry is not known here"
        raise NotFoundError(
            f"{LOCK_FILE} has {name} from {locked.registry}, and {why}",
            hint=f"name the registry to take it from in {PROJECT_FILE}: "
            f'`{name} = {{ version = "…", registry = "…" }}`',
        )

    def entry(self, candidate: Candidate, base: str, *, auto: bool) -> LockedPack:
        """What the lock says of a chosen version; reads its manifest."""
        assert candidate.origin is not None
        line = candidate.line
        manifest = None
        with suppress(IntegrityError):
            manifest = self._home.store.manifest(line.manifest)
        if manifest is None:
            manifest = candidate.manifest()
        return LockedPack(
            name=line.name,
            version=line.version,
            manifest=line.manifest,
            registry=self._places.locked(candidate.origin.label),
            publisher=line.publisher,
            base=base,
            auto=auto,
            requires=manifest.requires,
            blobs=tuple(
                LockedBlob(path=b.path, size=b.size, sha256=b.sha256) for b in manifest.blobs
            ),
        )

    def base_entry(self, offer: BaseOffer) -> LockedBase:
        """What the lock says of a base."""
        return LockedBase(
            name=offer.card.name,
            fingerprint=offer.card.fingerprint,
            card=offer.card.digest(),
            registry=self._places.locked(offer.label),
        )


def _offered(source: Source, name: str) -> list[Candidate]:
    from mbpm.catalogue import Candidate

    try:
        return [Candidate(line, source) for line in source.lines(name)]
    except NotFoundError:
        # a registry that is not there at all must not pass for one without the pack
        source.check()
        raise
