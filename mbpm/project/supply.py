"""What a lock names, brought by digest: from where the lock says, or from whoever has the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from specs.errors import IntegrityError, NotFoundError
from specs.lockfile import LOCK_FILE, Lock, LockedBase, LockedPack

if TYPE_CHECKING:
    from mbpm.catalogue import BaseOffer, Candidate, Catalogue
    from mbpm.project.places import Places
    from mbpm.registries.source import Source
    from mbpm.store import Store
    from specs.base_card import BaseCard
    from specs.generation import InstalledPack
    from specs.index_line import IndexLine


class LockSupply:
    """Finds again what a lock has. The digest decides: whatever else comes is refused."""

    def __init__(
        self, lock: Lock, places: Places, catalogue: Catalogue, store: Store, *, frozen: bool
    ) -> None:
        self._lock = lock
        self._places = places
        self._catalogue = catalogue
        self._store = store
        self._frozen = frozen
        """Whether no index is looked at."""
        for source in catalogue.sources() if frozen else ():
            source.freeze()

    def find(self, record: InstalledPack) -> Candidate:
        """The very version the lock has.

        Raises:
            NotFoundError: nobody has it any more.
            IntegrityError: its registry says that somebody else published it.
            NetworkError: its registry cannot be reached.
        """
        locked = self._lock.pack(record.name)
        assert locked is not None
        title = f"{locked.name} {locked.version}"
        try:
            candidate = None if self._frozen else self._catalogue.find(record)
            if candidate is None:
                candidate = self._by_digest(locked, record.registry)
        except NotFoundError as error:
            raise NotFoundError(
                f"{LOCK_FILE}: {title} cannot be had any more ({error.message})",
                hint=f"`mbpm sync --registry REGISTRY` names a registry that has it; "
                f"`mbpm lock --upgrade-pack {locked.name}` looks for another version",
            ) from None
        publisher = candidate.line.publisher
        if not self._frozen and publisher != locked.publisher and publisher:
            raise IntegrityError(
                f"{LOCK_FILE}: {title} was published by `{locked.publisher or 'nobody named'}`, "
                f"and its registry now says by `{publisher}`",
                hint="ask them; `mbpm lock` takes it as it is now",
            )
        return candidate

    def _by_digest(self, locked: LockedPack, label: str) -> Candidate:
        from mbpm.catalogue import Candidate, line_of

        source = self._catalogue.source(label)
        if source is None:
            raise NotFoundError(f"there is no registry at {label}")
        base = self._lock.base(locked.base)
        assert base is not None
        line = line_of(source.manifest(_as_line(locked, base)))
        return Candidate(line.model_copy(update={"publisher": locked.publisher}), source)

    def bases(self) -> Sequence[BaseOffer]:
        """The bases of the lock that are not in the store, with their cards as the lock has them.

        Raises:
            IntegrityError: a registry describes one otherwise now.
        """
        return [self._offer(b) for b in self._lock.bases if not self._here(b)]

    def _here(self, base: LockedBase) -> bool:
        from mbpm.inventory import whole_base

        with suppress(IntegrityError):
            return whole_base(self._store, self._store.card(base.card))
        return False

    def _offer(self, base: LockedBase) -> BaseOffer:
        label = self._places.label(base.registry)
        source = self._catalogue.source(label)
        same: BaseOffer | None = None
        for offer in self._offers(base, source):
            if offer.card.digest() == base.card:
                check_base(base, offer.card)
                return offer
            if offer.card.fingerprint == base.fingerprint:
                same = same or offer
        if same is None:
            raise NotFoundError(
                f"{LOCK_FILE}: base {base.name} ({base.fingerprint[:12]}) cannot be had from "
                f"{base.registry} any more",
                hint="`mbpm sync --registry REGISTRY` names a registry that has it",
            )
        raise IntegrityError(
            f"{LOCK_FILE}: base {base.name} has the card {base.card[:12]}, and {same.label} "
            f"describes it otherwise now ({same.card.digest()[:12]})",
            hint="`mbpm lock` takes it as it is described now",
        )

    def _offers(self, base: LockedBase, source: Source | None) -> Iterator[BaseOffer]:
        """Bases that may be the one, those of its registry first."""
        if source is not None and self._frozen:
            with suppress(NotFoundError):
                yield source.base(base.name)
        elif source is not None:
            yield from source.bases()
        if not self._frozen:
            yield from self._catalogue.bases()


def check_base(base: LockedBase, card: BaseCard) -> None:
    """Raises IntegrityError where the lock says something else of a base than its card."""
    if (card.name, card.fingerprint) != (base.name, base.fingerprint):
        raise IntegrityError(
            f"{LOCK_FILE}: what it says of base {base.name} is not so: its card is that of "
            f"{card.name} ({card.fingerprint[:12]})",
            hint=f"`mbpm lock` writes {LOCK_FILE} again",
        )


def _as_line(locked: LockedPack, base: LockedBase) -> IndexLine:
    """What a registry has to be asked for a manifest by digest; the rest of it is never shown."""
    from specs.index_line import IndexLine
    from specs.manifest import BaseRef
    from specs.model import MAX_DOCUMENT_BYTES

    return IndexLine(
        name=locked.name,
        version=locked.version,
        domain=locked.name,
        description=locked.name,
        license="NOASSERTION",
        base=BaseRef(name=base.name, fingerprint=base.fingerprint),
        manifest=locked.manifest,
        manifest_size=MAX_DOCUMENT_BYTES,
        size=max(locked.size, 1),
        published="1970-01-01T00:00:00Z",
    )
