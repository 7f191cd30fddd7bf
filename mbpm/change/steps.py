"""What a change consists of: the packs and bases to bring, and the state it ends in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from specs.errors import IntegrityError, ResolutionError
from specs.generation import InstalledBase, InstalledPack
from specs.manifest import ADAPTER_FILE
from specs.plan import Action, Plan, PlannedBase, PlannedPack

if TYPE_CHECKING:
    from mbpm.catalogue import BaseOffer, Candidate
    from mbpm.home import Home
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

    def find_base(self, record: InstalledBase) -> BaseOffer | None:
        """The very base a record names."""


class Offers(Supply, Protocol):
    """What there is to choose from: the catalogue, or what bundles hold."""

    def candidates(self, name: str) -> Sequence[Candidate]:
        """The versions of a pack; raises NotFoundError where there is none."""

    def providers(self, name: str) -> Sequence[str]:
        """Names of packs of which some version provides or replaces a name."""

    def prefetch(self, names: Sequence[str]) -> None:
        """Get ready for `candidates` of these packs and of what they require, all at once."""


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
    """Manifests of packs whose bytes are freed at once."""

    @property
    def commits(self) -> bool:
        """Whether it makes a new generation, and does not only free what earlier ones had."""
        return bool(self.plan.actions - {"purge"})


@dataclass
class Changes:
    """Collects the steps of one change and their lines in the plan."""

    before: Generation
    home: Home
    packs: dict[str, InstalledPack]
    bases: dict[str, InstalledBase]
    planned: list[PlannedPack] = field(default_factory=list)
    planned_bases: list[PlannedBase] = field(default_factory=list)
    pack_steps: list[PackStep] = field(default_factory=list)
    base_steps: list[BaseStep] = field(default_factory=list)
    purged: set[str] = field(default_factory=set)
    """Manifests of packs whose bytes are freed at once."""
    _counted: set[str] = field(default_factory=set)
    """Blobs whose bytes are in the plan as freed."""

    @classmethod
    def on(cls, home: Home) -> Changes:
        """No change yet: everything stays."""
        before = home.current()
        return cls(
            before,
            home,
            {p.name: p for p in before.packs},
            {b.name: b for b in before.bases},
        )

    @property
    def store(self) -> Store:
        """The bytes."""
        return self.home.store

    def after(self) -> Generation:
        """What is installed after the changes so far."""
        packs, bases = tuple(self.packs.values()), tuple(self.bases.values())
        return self.before.model_copy(update={"packs": packs, "bases": bases})

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
        same = old is not None and old.fingerprint == step.record.fingerprint
        blobs = [f.blob for f in step.card.files]
        missing = sum(b.size for b in blobs if not self._present(b, step.damaged))
        self.bases[step.record.name] = step.record
        self.base_steps.append(step)
        self.planned_bases.append(
            PlannedBase(
                name=step.record.name,
                action="repair" if same else "install",
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

    def mark_base(self, record: InstalledBase, reason: str) -> None:
        """Change what is recorded of a base that stays as it is."""
        self.bases[record.name] = record
        self.planned_bases.append(PlannedBase(name=record.name, action="mark", reason=reason))

    def frees(self, record: InstalledPack) -> bool:
        """Whether there is anything of a version that only earlier generations have."""
        store = self.store
        there = store.pack_path(record.manifest).is_dir() or store.has_document(record.manifest)
        return there and record.manifest not in self._needed

    def purge_pack(self, record: InstalledPack) -> None:
        """Free a version that only earlier generations have."""
        self.planned.append(
            PlannedPack(
                name=record.name,
                action="purge",
                old=record.version,
                new=None,
                disk_bytes=-self._freed(pack_blobs(record, self.store)),
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
            frozenset(self.purged),
        )

    def _present(self, blob: Blob, damaged: frozenset[str]) -> bool:
        return blob.sha256 not in damaged and self.store.has(blob)

    def _with_freed(self, planned: PlannedPack) -> PlannedPack:
        old = self.before.pack(planned.name)
        if planned.action in ("mark", "purge") or old in (None, self.packs.get(planned.name)):
            return planned
        assert old is not None
        freed = self._freed(pack_blobs(old, self.store))
        return planned.model_copy(update={"disk_bytes": planned.disk_bytes - freed})

    def _with_freed_base(self, planned: PlannedBase) -> PlannedBase:
        old = self.before.base(planned.name)
        if old is None or old == self.bases.get(planned.name):
            return planned
        freed = self._freed(base_blobs(old, self.store))
        return planned.model_copy(update={"disk_bytes": planned.disk_bytes - freed})

    def _freed(self, blobs: Mapping[str, int]) -> int:
        """Bytes of blobs that nothing of the new state needs, each counted once."""
        free = {d: size for d, size in blobs.items() if d not in self._needed | self._counted}
        self._counted |= free.keys()
        return sum(free.values())

    @cached_property
    def _needed(self) -> set[str]:
        """Blobs of the new state, and of what keeps them in spite of it."""
        from mbpm.garbage import keeping

        needed = keeping(self.home, self.after(), self.purged)
        for step in self.pack_steps:
            needed |= {b.sha256 for b in step.manifest.blobs}
        for base in self.base_steps:
            needed |= {f.blob.sha256 for f in base.card.files}
        return needed

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


def found(record: InstalledPack, catalogue: Supply, *, choosable: bool = True) -> Candidate:
    """The very version a record names, from where it came.

    Args:
        record: Names it.
        catalogue: Where to look.
        choosable: Whether the command takes `--registry`, and another version would do.

    Raises:
        ResolutionError: it cannot be had any more.
    """
    candidate = catalogue.find(record)
    if candidate is None:
        from specs.registries import is_url

        where = record.registry
        hints = [f"`mbpm registry add NAME {where}` configures it again"] if is_url(where) else []
        if choosable:
            hints.append("`--registry` names one that has it")
            hints.append(f"or `mbpm remove {record.name}`, then install another version")
        elif not hints:
            hints.append("`mbpm registry add` adds one that has it")
        raise ResolutionError(
            f"{record.name} {record.version} cannot be had from {where} any more",
            hint="; ".join(hints),
        )
    return candidate
