"""What a lock names, brought by digest: from where the lock says, or from whoever has the same."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from specs.errors import AuthError, IntegrityError, MbpmError, NetworkError, NotFoundError
from specs.lockfile import LOCK_FILE, Lock, LockedBase, LockedPack

if TYPE_CHECKING:
    from mbpm.catalogue import BaseOffer, Candidate, Catalogue
    from mbpm.project.places import Places
    from mbpm.registries.source import Source
    from mbpm.store import Store
    from specs.base_card import BaseCard
    from specs.generation import InstalledBase, InstalledPack
    from specs.index_line import IndexLine

_ELSEWHERE = (NotFoundError, NetworkError, AuthError)
"""What keeps nobody from asking the next registry."""


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
        self._check_publisher(locked, record.registry, candidate)
        return candidate

    def _check_publisher(self, locked: LockedPack, label: str, candidate: Candidate) -> None:
        """What another registry says of the publisher is not asked: the digest is the same."""
        said = candidate.line.publisher
        if candidate.origin is None or candidate.origin.label != label:
            return
        if locked.publisher and said != locked.publisher:
            now = f"by `{said}`" if said else "by nobody"
            raise IntegrityError(
                f"{LOCK_FILE}: {locked.name} {locked.version} was published by "
                f"`{locked.publisher}`, and its registry now says {now}",
                hint="ask them; `mbpm lock` takes it as it is now",
            )

    def _by_digest(self, locked: LockedPack, label: str) -> Candidate:
        from mbpm.catalogue import Candidate, line_of

        base = self._lock.base(locked.base)
        assert base is not None
        line = _as_line(locked, base)
        first: MbpmError = NotFoundError(f"there is no registry at {label}")
        for failed, source in enumerate(self._sources(label)):
            try:
                found = line_of(source.manifest(line))
            except _ELSEWHERE as error:
                first = first if failed else error
                continue
            return Candidate(found.model_copy(update={"publisher": locked.publisher}), source)
        raise first

    def _sources(self, label: str) -> list[Source]:
        """All registries, that with the label first."""
        own = self._catalogue.source(label)
        return list(dict.fromkeys([*([own] if own else []), *self._catalogue.sources()]))

    def bases(self) -> Sequence[BaseOffer]:
        """The bases of the lock that are not in the store, with their cards as the lock has them.

        Raises:
            IntegrityError: a registry describes one otherwise now.
        """
        return [self._offer(b) for b in self._lock.bases if not self._here(b)]

    def find_base(self, record: InstalledBase) -> BaseOffer | None:
        """The very base a record names; raises as `bases`."""
        return next((o for o in self.bases() if o.card.fingerprint == record.fingerprint), None)

    def _here(self, base: LockedBase) -> bool:
        from mbpm.inventory import whole_base

        with suppress(IntegrityError):
            return whole_base(self._store, self._store.card(base.card))
        return False

    def _offer(self, base: LockedBase) -> BaseOffer:
        same: BaseOffer | None = None
        unreachable: MbpmError | None = None
        for source in self._sources(self._places.label(base.registry)):
            try:
                offers = [source.base(base.name)] if self._frozen else source.bases()
            except _ELSEWHERE as error:
                if not isinstance(error, NotFoundError):
                    unreachable = unreachable or error
                continue
            for offer in offers:
                if offer.card.digest() == base.card:
                    check_base(base, offer.card)
                    return offer
                if offer.card.fingerprint == base.fingerprint:
                    same = same or offer
        if same is not None:
            raise IntegrityError(
                f"{LOCK_FILE}: base {base.name} has the card {base.card[:12]}, and {same.label} "
                f"describes it otherwise now ({same.card.digest()[:12]})",
                hint="`mbpm lock` takes it as it is described now",
            )
        raise unreachable or NotFoundError(
            f"{LOCK_FILE}: base {base.name} ({base.fingerprint[:12]}) cannot be had from "
            f"{base.registry} any more",
            hint="`mbpm sync --registry REGISTRY` names a registry that has it",
        )


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
