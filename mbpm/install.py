"""Installing packs and bases: plan, fetch, verify, stage, flip."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mbpm.catalogue import BaseOffer, Candidate, Catalogue, line_of, read_local
from mbpm.fetch import obtain
from mbpm.files import check_space, remove
from mbpm.home import Home
from mbpm.inventory import damaged_blobs, whole_base, whole_pack
from mbpm.output import Output
from mbpm.plan import plan_base, plan_pack
from mbpm.resolve import Request, resolve
from mbpm.store import Store
from mbpm.transaction import Writer
from registry_index.contents import check_contents, prove_attach
from specs.base_card import BaseCard
from specs.blobs import Blob, FileSource
from specs.errors import IntegrityError, NotFoundError, ResolutionError, UsageError
from specs.generation import Generation, InstalledBase, InstalledPack, Plan, PlannedBase
from specs.manifest import ADAPTER_FILE, Manifest
from specs.names import check_name
from specs.versions import Requirement


@dataclass(frozen=True)
class PackStep:
    """One pack to install, change or repair."""

    record: InstalledPack
    manifest: Manifest
    candidate: Candidate
    card: BaseCard
    damaged: frozenset[str]
    """Digests of blobs in the store that turned out wrong."""


@dataclass(frozen=True)
class BaseStep:
    """One base to install or repair."""

    record: InstalledBase
    offer: BaseOffer
    damaged: frozenset[str]


@dataclass(frozen=True)
class Prepared:
    """A plan with everything needed to carry it out on the generation it was made for."""

    before: Generation
    plan: Plan
    packs: tuple[PackStep, ...]
    bases: tuple[BaseStep, ...]
    satisfied: tuple[InstalledPack, ...]
    """Requested packs that are installed already."""
    resident: int
    """Bytes of memory the largest installed base and all packs take afterwards."""


def parse_target(text: str) -> Request:
    """Read `NAME`, `NAME@REQUIREMENT`, a folder or a `.mbpack` file from the command line.

    Raises:
        UsageError: it is none of these.
        NotFoundError, IntegrityError: as `read_local`.
    """
    if "/" in text or "\\" in text or text in (".", "..") or text.endswith(".mbpack"):
        candidate = read_local(Path(text).expanduser())
        return Request(candidate.line.name, pinned=candidate)
    name, at, requirement = text.partition("@")
    hint = None
    if Path(name).is_dir():
        hint = f"`mbpm install ./{name}` installs the folder"
    try:
        check_name(name)
        return Request(name, Requirement(requirement) if at else None)
    except ValueError as error:
        raise UsageError(str(error), hint=hint) from None


def prepare(
    home: Home, requests: Sequence[Request], catalogue: Catalogue, *, reinstall: bool = False
) -> Prepared:
    """Work out what installing would do; changes nothing.

    Raises:
        NotFoundError, ResolutionError, IntegrityError: as `mbpm.resolve.resolve`.
    """
    before, store = home.current(), home.store
    manifests = _manifests(before, store)
    installed = {name: Candidate(line_of(m), None) for name, m in manifests.items()}
    offers = catalogue.bases()
    fingerprints = {b.fingerprint for b in before.bases} | {o.card.fingerprint for o in offers}
    fresh = [_again(r, before, catalogue) for r in requests] if reinstall else list(requests)
    chosen = resolve(fresh, installed, catalogue.candidates, fingerprints)
    asked = {r.name for r in requests}
    packs, planned, satisfied = [], [], []
    bases: dict[str, BaseStep] = {}
    for name, candidate in chosen.items():
        record = before.pack(name)
        manifest = manifests[name] if candidate.origin is None else candidate.manifest()
        damaged: frozenset[str] = frozenset()
        if record is not None and record.manifest == manifest.digest():
            folder = store.pack_path(record.manifest)
            if reinstall and name in asked:
                damaged = damaged_blobs(store, folder, manifest.blobs)
            if not damaged and whole_pack(store, manifest):
                if name in asked:
                    satisfied.append(record)
                continue
            if candidate.origin is None:
                candidate = _find(record, catalogue)
        card, step = _base_for(manifest, before, store, offers)
        if step is not None:
            bases[card.name] = step
        assert candidate.origin is not None
        new = InstalledPack(
            name=name,
            version=manifest.version,
            manifest=manifest.digest(),
            base=card.name,
            registry=candidate.origin.label,
            auto=name not in asked if record is None else record.auto and name not in asked,
        )
        packs.append(PackStep(new, manifest, candidate, card, damaged))
        old = record.version if record else None
        planned.append(plan_pack(manifest, candidate.line, old, _present(store, damaged)))
    plan = Plan(packs=tuple(planned), bases=tuple(_plan_base(s, store) for s in bases.values()))
    steps = tuple(bases.values())
    resident = _resident(before, store, packs, steps)
    return Prepared(before, plan, tuple(packs), steps, tuple(satisfied), resident)


def prepare_base(home: Home, name: str, catalogue: Catalogue, *, reinstall: bool) -> Prepared:
    """Work out what installing a base would do; changes nothing.

    Raises:
        NotFoundError: no such base.
        ResolutionError: another base of this name is installed and packs need it.
    """
    before, store, offer = home.current(), home.store, catalogue.base(name)
    step = _base_step(offer, before, store, auto=False)
    if step is None and reinstall:
        record = before.base(name)
        assert record is not None
        blobs = [f.blob for f in offer.card.files]
        damaged = damaged_blobs(store, store.base_path(record.card), blobs)
        step = BaseStep(record, offer, damaged) if damaged else None
    steps = () if step is None else (step,)
    plan = Plan(bases=tuple(_plan_base(s, store) for s in steps))
    return Prepared(before, plan, (), steps, (), _resident(before, store, [], steps))


def apply(
    writer: Writer, prepared: Prepared, again: Callable[[], Prepared], out: Output, *, offline: bool
) -> Generation:
    """Carry a plan out under the writer's lock.

    Args:
        writer: The right to write.
        prepared: What was shown and agreed to.
        again: Makes the plan anew, in case something was installed in between.
        out: For progress.
        offline: Touch no network.

    Raises:
        ResolutionError: what is installed changed, and more would have to be done now.
        IntegrityError: a pack or blob is not what it claims to be; nothing was changed.
        MbpmError: as `mbpm.fetch.obtain`.
    """
    home, store = writer.home, writer.home.store
    if home.current() != prepared.before:
        renewed = again()
        if not _within(renewed.plan, prepared.plan):
            raise ResolutionError(
                "what is installed changed in the meantime, and with it this plan",
                hint="run the same command again",
            )
        if renewed.plan.empty:
            return renewed.before
        prepared = renewed
    check_space(store.root, prepared.plan.fetch_bytes, "this")
    for digest in _damage([*prepared.packs, *prepared.bases]):
        store.drop("blob", digest)
    for step in prepared.packs:
        fetched = _fetch_pack(step, store, out, offline)
        try:
            _check_pack(step, store)
        except IntegrityError:
            for blob in fetched:
                store.drop("blob", blob.sha256)
            raise
    for base in prepared.bases:
        _fetch_base(base, store, out, offline)
    before = prepared.before
    packs = {p.name: p for p in before.packs} | {s.record.name: s.record for s in prepared.packs}
    bases = {b.name: b for b in before.bases} | {s.record.name: s.record for s in prepared.bases}
    # what stands in a folder's place is damaged, or a leftover
    for step in prepared.packs:
        store.drop("pack", step.record.manifest)
    for base in prepared.bases:
        store.drop("base", base.record.card)
    return writer.commit(
        packs.values(),
        bases.values(),
        new_packs=[s.manifest for s in prepared.packs],
        new_bases=[s.offer.card for s in prepared.bases],
    )


def _within(plan: Plan, agreed: Plan) -> bool:
    """Whether a plan does nothing but what was agreed to; what others did meanwhile is left out."""
    packs = {(p.name, p.old, p.new, p.line and p.line.manifest) for p in agreed.packs}
    bases = {(b.name, b.action) for b in agreed.bases}
    return (
        all((p.name, p.old, p.new, p.line and p.line.manifest) in packs for p in plan.packs)
        and all((b.name, b.action) in bases for b in plan.bases)
        and plan.fetch_bytes <= agreed.fetch_bytes
    )


def _damage(steps: Iterable[PackStep | BaseStep]) -> set[str]:
    return {digest for step in steps for digest in step.damaged}


def _present(store: Store, damaged: frozenset[str]) -> Callable[[Blob], bool]:
    return lambda blob: blob.sha256 not in damaged and store.has(blob)


def _plan_base(step: BaseStep, store: Store) -> PlannedBase:
    return plan_base(step.offer.card, _present(store, step.damaged))


def _again(request: Request, before: Generation, catalogue: Catalogue) -> Request:
    """The request pinned to the very version that is installed, where its registry has it."""
    record = before.pack(request.name)
    if record is None or request.pinned is not None or request.requirement is not None:
        return request
    return Request(request.name, pinned=_find(record, catalogue))


def _find(record: InstalledPack, catalogue: Catalogue) -> Candidate:
    """Where an installed pack can be fetched again."""
    kind, _, place = record.registry.partition(" ")
    if kind in ("folder", "archive") and place:
        found = [read_local(Path(place))]
    else:
        # a registry that was named when installing need not be named again
        own = Path(record.registry)
        found = []
        for known in [Catalogue([own]), catalogue] if own.is_absolute() else [catalogue]:
            with contextlib.suppress(NotFoundError):
                found += known.candidates(record.name)
    for candidate in found:
        if candidate.line.manifest == record.manifest:
            return candidate
    raise ResolutionError(
        f"{record.name} {record.version} cannot be had from {record.registry} any more",
        hint="`--registry DIRECTORY` names one that has it; "
        f"or `mbpm remove {record.name}`, then install another version",
    )


def _base_for(
    manifest: Manifest, before: Generation, store: Store, offers: Sequence[BaseOffer]
) -> tuple[BaseCard, BaseStep | None]:
    """The card of a pack's base, and the step that installs it where it is missing."""
    for record in before.bases:
        if record.fingerprint == manifest.base.fingerprint:
            # a lost card is as good as a base that is not installed: it comes from a registry
            with contextlib.suppress(IntegrityError):
                return store.card(record.card), None
    for offer in offers:
        if offer.card.fingerprint == manifest.base.fingerprint:
            return offer.card, _base_step(offer, before, store, auto=True)
    raise IntegrityError(
        f"{manifest.name} {manifest.version} was made for base {manifest.base.name} "
        f"({manifest.base.fingerprint[:12]}), which no registry offers",
        hint="`mbpm base list` shows the bases there are",
    )


def _base_step(
    offer: BaseOffer, before: Generation, store: Store, *, auto: bool
) -> BaseStep | None:
    """What installing a base takes; None where it is installed and whole."""
    card = offer.card
    record = before.base(card.name)
    if record is not None and record.fingerprint != card.fingerprint:
        users = [p.name for p in before.packs if p.base == card.name]
        if users:
            raise ResolutionError(
                f"another base called {card.name} is installed, and {', '.join(users)} needs it",
                hint=f"`mbpm remove {' '.join(users)}` first",
            )
    digest = card.digest()
    if record is not None and record.card == digest and whole_base(store, card):
        return None
    auto = auto if record is None else record.auto and auto
    new = InstalledBase(name=card.name, fingerprint=card.fingerprint, card=digest, auto=auto)
    return BaseStep(new, offer, frozenset())


def _manifests(generation: Generation, store: Store) -> dict[str, Manifest]:
    """The manifests of the installed packs, without those that are damaged: a pack nothing is
    known of counts as not installed, and must not keep others from being installed."""
    found = {}
    for pack in generation.packs:
        with contextlib.suppress(IntegrityError):
            found[pack.name] = store.manifest(pack.manifest)
    return found


def _resident(
    before: Generation, store: Store, packs: Sequence[PackStep], bases: Sequence[BaseStep]
) -> int:
    """Memory once installed: the largest base, and every pack's adapter."""
    manifests = _manifests(before, store) | {s.record.name: s.manifest for s in packs}
    cards = [s.offer.card for s in bases]
    for base in before.bases:
        with contextlib.suppress(IntegrityError):
            cards.append(store.card(base.card))
    adapters = sum(m.blob(ADAPTER_FILE).size for m in manifests.values())
    return adapters + max((c.resident_bytes for c in cards), default=0)


def _fetch_pack(step: PackStep, store: Store, out: Output, offline: bool) -> list[Blob]:
    """Bring the blobs that are missing into the store; returns those."""
    title = f"{step.record.name} {step.record.version}"
    missing = [b for b in step.manifest.blobs if not store.has(b)]
    if not missing:
        return []
    origin = step.candidate.origin
    assert origin is not None
    scratch = store.staging / "unpacked"
    with out.progress(f"fetching {title}", sum(b.size for b in missing)) as progress:
        for blob in missing:
            obtain(
                store,
                blob,
                [origin.source(blob, scratch)],
                folder=Path("/"),
                what=f"{blob.path} of {title}",
                offline=offline,
                progress=progress,
                report=out.warn,
            )
    remove(scratch)
    return missing


def _check_pack(step: PackStep, store: Store) -> None:
    """Everything that makes a pack fit to run, before it is anywhere near being installed."""
    files = {b.path: store.blob_path(b.sha256) for b in step.manifest.blobs}
    try:
        check_contents(step.manifest, files)
        prove_attach(step.manifest, files, step.card)
    except IntegrityError as error:
        message = error.message
        for name, file in files.items():
            message = message.replace(str(file), name)
        raise IntegrityError(
            f"{step.record.name} {step.record.version}: {message}", hint=error.hint
        ) from None


def _fetch_base(step: BaseStep, store: Store, out: Output, offline: bool) -> None:
    card, registry = step.offer.card, step.offer.registry
    missing = [f for f in card.files if not store.has(f.blob)]
    if not missing:
        return
    with out.progress(f"fetching base {card.name}", sum(f.blob.size for f in missing)) as progress:
        for file in missing:
            own = registry.blob_path(file.blob.sha256)
            first = [FileSource(path=str(own.absolute()))] if own.is_file() else []
            obtain(
                store,
                file.blob,
                [*first, *file.sources],
                folder=step.offer.folder,
                what=f"{file.blob.path} of base {card.name}",
                offline=offline,
                progress=progress,
                report=out.warn,
            )
