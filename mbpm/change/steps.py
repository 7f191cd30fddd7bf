"""What a change consists of: the packs and bases to bring, and the state it ends in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from specs.errors import IntegrityError, ResolutionError
from specs.generation import Action, InstalledBase, InstalledPack, Plan, PlannedBase, PlannedPack
from specs.manifest import ADAPTER_FILE

if TYPE_CHECKING:
    from mbpm.catalogue import BaseOffer, Candidate
    from mbpm.store import Store
    from specs.base_card import BaseCard
    from specs.blobs import Blob
    from specs.generation import Generation
    from specs.manifest import Manifest


class Supply(Protocol):
    """Where what a record names is found again: the catalogue, or what a lock says."""

    def find(self, record: InstalledPack) -> Candidate | None:
        """The very version a record names."""

    def bases(self) -> Sequence[BaseOffer]:
        """The bases there are."""


class Offers(Supply, Protocol):
    """What there is to choose from: the catalogue, or what bundles hold."""

    def candidates(self, name: str) -> Sequence[Candidate]:
        """The versions of a pack; raises NotFoundError where there is none."""

    def providers(self, name: str) -> Sequence[str]:
        """Names of packs of which some version provides or replaces a name."""


@dataclass(frozen=True)
class PackStep:
    """One pack whose folder has to be made, or made again."""

    record: InstalledPack
    manifest: Manifest
    candidate: Candidate | None
    """Where its bytes come from; None where all of them are in the store."""
    card: BaseCard
    """The card of its base."""
    damaged: frozenset[str] = frozenset()
    """Digests of blobs in the store that turned out wrong."""


@dataclass(frozen=True)
class BaseStep:
    """One base whose folder has to be made, or made again."""

    record: InstalledBase
    card: BaseCard
    offer: BaseOffer | None
    """Where its bytes come from; None where all of them are in the store."""
    damaged: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Prepared:
    """A plan with everything needed to carry it out on the generation it was made for."""

    before: Generation
    plan: Plan
    packs: tuple[InstalledPack, ...]
    """Every pack of the state it ends in."""
    bases: tuple[InstalledBase, ...]
    """Every base of that state."""
    pack_steps: tuple[PackStep, ...] = ()
    base_steps: tuple[BaseStep, ...] = ()
    satisfied: tuple[str, ...] = ()
    """What was asked for and is there already, a sentence each."""
    purged: frozenset[str] = frozenset()
    """Manifests and cards whose bytes are freed at once."""


@dataclass
class Changes:
    """Collects the steps of one change and their lines in the plan."""

    before: Generation
    store: Store
    packs: dict[str, InstalledPack] = field(default_factory=dict)
    bases: dict[str, InstalledBase] = field(default_factory=dict)
    planned: list[PlannedPack] = field(default_factory=list)
    planned_bases: list[PlannedBase] = field(default_factory=list)
    pack_steps: list[PackStep] = field(default_factory=list)
    base_steps: list[BaseStep] = field(default_factory=list)

    @classmethod
    def on(cls, before: Generation, store: Store) -> Changes:
        """No change yet: everything stays."""
        return cls(
            before,
            store,
            {p.name: p for p in before.packs},
            {b.name: b for b in before.bases},
        )

    def put_pack(self, step: PackStep, *, reason: str = "") -> None:
        """Install, change or repair a pack."""
        old = self.before.pack(step.record.name)
        self.packs[step.record.name] = step.record
        self.pack_steps.append(step)
        missing = sum(b.size for b in step.manifest.blobs if not self._present(b, step.damaged))
        before = old.publisher if old else None
        self.planned.append(
            PlannedPack(
                name=step.record.name,
                action=_action(old, step.record),
                old=old.version if old else None,
                new=step.record.version,
                registry=step.record.registry,
                auto=step.record.auto,
                reason=reason,
                old_publisher=before if before != step.record.publisher else None,
                line=step.candidate.line if step.candidate else None,
                fetch_bytes=missing,
                disk_bytes=missing,
                memory_bytes=step.manifest.blob(ADAPTER_FILE).size,
            )
        )

    def put_base(self, step: BaseStep) -> None:
        """Install or repair a base."""
        if step.record.name in {s.record.name for s in self.base_steps}:
            return
        old = self.before.base(step.record.name)
        blobs = [f.blob for f in step.card.files]
        missing = sum(b.size for b in blobs if not self._present(b, step.damaged))
        self.bases[step.record.name] = step.record
        self.base_steps.append(step)
        self.planned_bases.append(
            PlannedBase(
                name=step.record.name,
                action="repair" if old and old.card == step.record.card else "install",
                fetch_bytes=missing,
                disk_bytes=missing,
                memory_bytes=step.card.resident_bytes,
            )
        )

    def mark_pack(self, record: InstalledPack, reason: str) -> None:
        """Change what is recorded of a pack that stays as it is."""
        self.packs[record.name] = record
        self.planned.append(
            PlannedPack(
                name=record.name,
                action="mark",
                old=record.version,
                new=record.version,
                registry=record.registry,
                auto=record.auto,
                reason=reason,
            )
        )

    def remove_pack(self, name: str, reason: str = "") -> None:
        """Take a pack out."""
        old = self.packs.pop(name)
        self.planned.append(
            PlannedPack(name=name, action="remove", old=old.version, new=None, reason=reason)
        )

    def remove_base(self, name: str) -> None:
        """Take a base out."""
        del self.bases[name]
        self.planned_bases.append(PlannedBase(name=name, action="remove"))

    def prepared(self, plan: Plan | None = None, satisfied: Iterable[str] = ()) -> Prepared:
        """The finished change; `plan` holds what else is to be said about it."""
        plan = plan or Plan()
        return Prepared(
            self.before,
            plan.model_copy(
                update={
                    "packs": tuple(map(self._with_freed, self.planned)),
                    "bases": tuple(map(self._with_freed_base, self.planned_bases)),
                    "resident_bytes": self._resident(),
                }
            ),
            tuple(self.packs.values()),
            tuple(self.bases.values()),
            tuple(self.pack_steps),
            tuple(self.base_steps),
            tuple(satisfied),
        )

    def _present(self, blob: Blob, damaged: frozenset[str]) -> bool:
        return blob.sha256 not in damaged and self.store.has(blob)

    def _with_freed(self, planned: PlannedPack) -> PlannedPack:
        old = self.before.pack(planned.name)
        if planned.action == "mark" or old is None or old == self.packs.get(planned.name):
            return planned
        freed = self._freed(pack_blobs(old, self.store))
        return planned.model_copy(update={"disk_bytes": planned.disk_bytes - freed})

    def _with_freed_base(self, planned: PlannedBase) -> PlannedBase:
        old = self.before.base(planned.name)
        if old is None or old == self.bases.get(planned.name):
            return planned
        freed = self._freed(base_blobs(old, self.store))
        return planned.model_copy(update={"disk_bytes": planned.disk_bytes - freed})

    def _freed(self, blobs: Mapping[str, int]) -> int:
        """Bytes of blobs that nothing of the new state needs."""
        needed: set[str] = set()
        for step in self.pack_steps:
            needed |= {b.sha256 for b in step.manifest.blobs}
        for base in self.base_steps:
            needed |= {f.blob.sha256 for f in base.card.files}
        for pack in self.packs.values():
            needed |= pack_blobs(pack, self.store).keys()
        for record in self.bases.values():
            needed |= base_blobs(record, self.store).keys()
        return sum(size for digest, size in blobs.items() if digest not in needed)

    def _resident(self) -> int:
        """Memory once installed: the largest base, and every pack's adapter."""
        if not self.pack_steps and not self.base_steps:
            return 0
        fresh = {s.record.name: s.manifest for s in self.pack_steps}
        cards = [s.card for s in self.base_steps]
        adapters = 0
        for pack in self.packs.values():
            with suppress(IntegrityError):
                manifest = fresh.get(pack.name) or self.store.manifest(pack.manifest)
                adapters += manifest.blob(ADAPTER_FILE).size
        for base in self.bases.values():
            with suppress(IntegrityError):
                cards.append(self.store.card(base.card))
        return adapters + max((c.resident_bytes for c in cards), default=0)


def _action(old: InstalledPack | None, new: InstalledPack) -> Action:
    from specs.versions import Version

    if old is None:
        return "install"
    if old.manifest == new.manifest:
        return "repair"
    if old.version == new.version:
        return "replace"
    return "upgrade" if Version(old.version) < Version(new.version) else "downgrade"


def pack_blobs(pack: InstalledPack, store: Store) -> dict[str, int]:
    """Digest -> bytes of an installed pack's blobs; empty where its manifest is damaged."""
    try:
        return {b.sha256: b.size for b in store.manifest(pack.manifest).blobs}
    except IntegrityError:
        return {}


def base_blobs(base: InstalledBase, store: Store) -> dict[str, int]:
    """Digest -> bytes of an installed base's blobs; empty where its card is damaged."""
    try:
        return {f.blob.sha256: f.blob.size for f in store.card(base.card).files}
    except IntegrityError:
        return {}


def base_for(
    manifest: Manifest, changes: Changes, offers: Callable[[], Sequence[BaseOffer]]
) -> BaseCard:
    """The card of a pack's base, installing it where it is missing.

    Raises:
        IntegrityError: nobody offers a base with that fingerprint.
        ResolutionError: as `base_step`.
    """
    fingerprint = manifest.base.fingerprint
    for step in changes.base_steps:
        if step.card.fingerprint == fingerprint:
            return step.card
    for record in changes.bases.values():
        if record.fingerprint == fingerprint:
            # a lost card is as good as a base that is not installed: it comes from a registry
            with suppress(IntegrityError):
                return changes.store.card(record.card)
    for offer in offers():
        if offer.card.fingerprint == fingerprint:
            if (needed := base_step(offer, changes, auto=True)) is not None:
                changes.put_base(needed)
            return offer.card
    raise IntegrityError(
        f"{manifest.name} {manifest.version} was made for base {manifest.base.name} "
        f"({fingerprint[:12]}), which no registry offers",
        hint="`mbpm base list` shows the bases there are",
    )


def base_step(offer: BaseOffer, changes: Changes, *, auto: bool) -> BaseStep | None:
    """What installing a base takes; None where it is installed and whole.

    Raises:
        ResolutionError: another base of this name is installed, and packs that stay need it.
    """
    from mbpm.inventory import whole_base

    card = offer.card
    record = changes.before.base(card.name)
    if record is not None and record.fingerprint != card.fingerprint:
        users = [p.name for p in changes.packs.values() if p.base == card.name]
        users = [u for u in users if (old := changes.before.pack(u)) and old == changes.packs[u]]
        if users:
            raise ResolutionError(
                f"another base called {card.name} is installed, and {', '.join(users)} needs it",
                hint=f"`mbpm remove {' '.join(users)}` first",
            )
    digest = card.digest()
    if record is not None and record.card == digest and whole_base(changes.store, card):
        return None
    new = InstalledBase(
        name=card.name,
        fingerprint=card.fingerprint,
        card=digest,
        registry=offer.label,
        auto=auto if record is None else record.auto and auto,
    )
    return BaseStep(new, card, offer)


def source_of(
    record: InstalledPack, manifest: Manifest, store: Store, catalogue: Supply
) -> Candidate | None:
    """Where the bytes of a known pack come from; None where the store has all of them.

    Raises:
        ResolutionError: they are not all here, and nobody has them any more.
    """
    if all(store.has(b) for b in manifest.blobs):
        return None
    return found(record, catalogue)


def found(record: InstalledPack, catalogue: Supply) -> Candidate:
    """The very version a record names, from where it came.

    Raises:
        ResolutionError: it cannot be had any more.
    """
    candidate = catalogue.find(record)
    if candidate is None:
        raise ResolutionError(
            f"{record.name} {record.version} cannot be had from {record.registry} any more",
            hint="`--registry` names one that has it; "
            f"or `mbpm remove {record.name}`, then install another version",
        )
    return candidate
