"""Working out what installing and upgrading would do; changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.change.bases import base_for, want_base
from mbpm.change.steps import BaseStep, Changes, Offers, PackStep, Prepared, found
from mbpm.inventory import damaged_blobs, whole_base, whole_pack
from specs.errors import IntegrityError, NotFoundError, UsageError
from specs.generation import InstalledPack
from specs.names import check_name
from specs.plan import KeptBack, LeftOut, Plan
from specs.versions import Requirement, Version

if TYPE_CHECKING:
    from mbpm.catalogue import BaseOffer, Candidate, Catalogue
    from mbpm.home import Home
    from mbpm.resolver import Request, Solution
    from mbpm.store import Store
    from specs.generation import Generation
    from specs.manifest import Manifest


@dataclass(frozen=True)
class Goal:
    """What a command line wants to be true afterwards."""

    requests: tuple[Request, ...] = ()
    upgrade: frozenset[str] = frozenset()
    """Installed packs to make as new as possible."""
    removable: bool = False
    """Whether other installed packs may go for it."""
    recommends: bool = True
    prereleases: bool = False
    locked: Mapping[str, str] = field(default_factory=dict)
    """Name -> manifest digest to prefer above all."""
    keep_marks: bool = False
    """Whether a requested pack that came for others only stays marked so."""
    reinstall: bool = False
    """Whether every byte of what is requested and installed is checked."""
    bases: frozenset[str] = frozenset()
    """Bases to have although no pack needs them."""


def parse_target(text: str) -> Request:
    """Read `NAME`, `NAME@REQUIREMENT`, a folder or a `.mbpack` file from the command line.

    Raises:
        UsageError: it is none of these.
        NotFoundError, IntegrityError: as `mbpm.catalogue.read_local`.
    """
    from mbpm.resolver import Request

    if "://" in text:
        raise UsageError(
            f"`{text}` is an address, and only names, folders and files can be installed",
            hint="download the file first; or `mbpm registry add NAME ADDRESS`, then its packs "
            "go by their names",
        )
    if text.endswith(".mbundle"):
        raise UsageError(
            f"{text}: is a bundle", hint=f"`mbpm install {text}` installs the packs it holds"
        )
    if "/" in text or "\\" in text or text in (".", "..") or text.endswith(".mbpack"):
        from mbpm.catalogue import read_local

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


def reached(home: Home, goal: Goal) -> Prepared | None:
    """The empty plan, where everything asked for is there and nothing has to be looked up to know
    it; else None."""
    if goal.upgrade or goal.reinstall or goal.removable or goal.locked or goal.bases:
        return None
    changes, store = Changes.on(home), home.store
    manifests = known_manifests(changes.before, store)
    satisfied = {}
    for request in goal.requests:
        record = changes.before.pack(request.name)
        if record is None or record.auto or request.pinned or request.name not in manifests:
            return None
        if request.requirement and not request.requirement.admits(Version(record.version)):
            return None
        if not whole_pack(store, manifests[request.name]):
            return None
        if changes.before.base(record.base) is None:
            return None
        satisfied[request.name] = _there(_title(record), checked=False)
    return changes.prepared(satisfied=satisfied.values())


def prepare(home: Home, goal: Goal, catalogue: Offers) -> Prepared:
    """What reaching a goal takes.

    Raises:
        NotFoundError, ResolutionError, IntegrityError: as `mbpm.resolver.resolve`.
        NotFoundError: what is to be upgraded by its name was removed meanwhile.
    """
    changes = Changes.on(home)
    before = changes.before
    for request in goal.requests:
        if request.name in goal.upgrade and before.pack(request.name) is None:
            raise NotFoundError(
                f"pack `{request.name}` is not installed any more",
                hint=f"`mbpm install {request.name}` installs it again",
            )
    manifests = known_manifests(before, home.store)
    solution = _solve(goal, before, manifests, catalogue)
    for name, reason in solution.removed.items():
        changes.remove_pack(name, reason)
    asked = {r.name for r in goal.requests}
    named = frozenset() if goal.keep_marks else asked
    missed = {p.name for p in before.packs if p.name in solution.removed and not p.auto}
    satisfied = []
    for name, candidate in solution.packs.items():
        record = before.pack(name)
        manifest = manifests[name] if candidate.origin is None else candidate.manifest()
        # who wanted what it replaces wants it
        wanted = name in named or bool(missed & manifest.replaces.keys())
        damaged: frozenset[str] = frozenset()
        same = record is not None and record.manifest == manifest.digest()
        if record is not None and same:
            folder = home.store.pack_path(record.manifest)
            if goal.reinstall and name in asked:
                damaged = damaged_blobs(home.store, folder, manifest.blobs)
            if not damaged and whole_pack(home.store, manifest):
                if wanted and record.auto:
                    changes.mark_pack(record.model_copy(update={"auto": False}), "wanted itself")
                elif name in named:
                    satisfied.append(_there(_title(record), checked=goal.reinstall))
                continue
            if candidate.origin is None:
                candidate = found(record, catalogue)
        card = base_for(manifest, changes, catalogue.bases)
        assert candidate.origin is not None
        new = _record(name, manifest, card.name, candidate, record, wanted=wanted)
        needed_by = solution.needed_by.get(name, ())
        reason = f"required by {', '.join(needed_by)}" if new.auto and needed_by else ""
        changes.put_pack(PackStep(new, manifest, candidate, card, damaged), reason=reason)
    for offer in catalogue.bases() if goal.bases else ():
        if offer.card.name in goal.bases and not want_base(offer, changes):
            satisfied.append(_there(f"base {offer.card.name}", checked=False))
    return changes.prepared(_remarks(before, solution), satisfied)


def _title(record: InstalledPack) -> str:
    return f"{record.name} {record.version}"


def _there(title: str, *, checked: bool) -> str:
    return f"{title} is installed" + (", and every byte of it is right" if checked else " already")


def _record(
    name: str,
    manifest: Manifest,
    base: str,
    candidate: Candidate,
    old: InstalledPack | None,
    *,
    wanted: bool,
) -> InstalledPack:
    assert candidate.origin is not None
    return InstalledPack(
        name=name,
        version=manifest.version,
        manifest=manifest.digest(),
        base=base,
        registry=candidate.origin.label,
        publisher=candidate.line.publisher or None,
        auto=not wanted if old is None else old.auto and not wanted,
        held=old is not None and old.held,
        pin=old.pin if old is not None else None,
    )


def _solve(
    goal: Goal,
    before: Generation,
    manifests: Mapping[str, Manifest],
    catalogue: Offers,
) -> Solution:
    from mbpm.catalogue import Candidate, line_of
    from mbpm.hardware import detect
    from mbpm.registries.origins import LOCAL
    from mbpm.resolver import Installed, Problem, resolve

    installed = {
        record.name: Installed(
            Candidate(line_of(manifests[record.name]), None),
            auto=record.auto,
            held=record.held,
            pin=Requirement(record.pin) if record.pin else None,
        )
        for record in before.packs
        if record.name in manifests
    }
    asked = {r.name for r in goal.requests}
    # what came from a folder or file is nobody's to upgrade unless it is named
    own = {p.name for p in before.packs if p.registry.startswith(LOCAL)} - asked

    def lookup(name: str) -> Sequence[Candidate]:
        if name in own and name in installed:
            return [installed[name].candidate]
        return catalogue.candidates(name)

    new = {r.name for r in goal.requests if r.pinned is None} - installed.keys()
    catalogue.prefetch(sorted((new | goal.upgrade) - own))
    requests = tuple(_again(r, before, catalogue) if goal.reinstall else r for r in goal.requests)
    bases = {o.card.fingerprint: o.card.name for o in catalogue.bases()}
    bases |= {b.fingerprint: b.name for b in before.bases}
    return resolve(
        Problem(
            requests=requests,
            installed=installed,
            lookup=lookup,
            providers=catalogue.providers,
            bases=bases,
            hardware=detect(),
            upgrade=goal.upgrade & installed.keys(),
            removable=goal.removable,
            recommends=goal.recommends,
            prereleases=goal.prereleases,
            locked=goal.locked,
        )
    )


def _again(request: Request, before: Generation, catalogue: Offers) -> Request:
    """The request pinned to the very version that is installed, where its registry has it."""
    from mbpm.resolver import Request

    record = before.pack(request.name)
    if record is None or request.pinned is not None or request.requirement is not None:
        return request
    return Request(request.name, pinned=found(record, catalogue))


def _remarks(before: Generation, solution: Solution) -> Plan:
    kept = []
    for name, (newest, reason) in sorted(solution.kept_back.items()):
        record = before.pack(name)
        assert record is not None
        kept.append(KeptBack(name=name, version=record.version, newest=newest.text, reason=reason))
    left = [LeftOut(name=n, reason=r) for n, r in sorted(solution.left_out.items())]
    return Plan(kept_back=tuple(kept), left_out=tuple(left))


def prepare_base(home: Home, offer: BaseOffer, *, reinstall: bool) -> Prepared:
    """What installing a base takes.

    Raises:
        ResolutionError: another base of this name is installed and packs need it.
    """
    changes = Changes.on(home)
    before, store, name = changes.before, home.store, offer.card.name
    record = before.base(name)
    changed = want_base(offer, changes)
    if record is not None and reinstall and not changes.base_steps:
        blobs = [f.blob for f in offer.card.files]
        damaged = damaged_blobs(store, store.base_path(record.card), blobs)
        if damaged:
            changed = True
            changes.put_base(BaseStep(changes.bases[name], offer.card, offer, damaged))
    return changes.prepared(
        satisfied=[] if changed else [_there(f"base {name}", checked=reinstall)]
    )


def prepare_repair(
    home: Home, packs: Sequence[InstalledPack], catalogue: Catalogue, *, bases: bool
) -> Prepared:
    """What mending damaged packs, and with `bases` all damaged bases, takes.

    Reads every byte of them.

    Raises:
        ResolutionError: something is damaged and cannot be had any more.
    """
    changes = Changes.on(home)
    before, store = changes.before, home.store
    for base in before.bases if bases else ():
        card = None
        with suppress(IntegrityError):
            card = store.card(base.card)
        blobs = [f.blob for f in card.files] if card else []
        damaged = damaged_blobs(store, store.base_path(base.card), blobs)
        if card is None or damaged or not whole_base(store, card):
            offer = catalogue.find_base(base)
            if offer is None:
                raise IntegrityError(
                    f"base {base.name} ({base.fingerprint[:12]}) is damaged, and no registry "
                    "offers it",
                    hint="`--registry` names one that has it; `mbpm base list` shows the bases "
                    "there are",
                )
            # its registry may describe it in other words now
            new = base.model_copy(update={"card": offer.card.digest()})
            changes.put_base(BaseStep(new, offer.card, offer, damaged))
    for wanted in packs:
        record = before.pack(wanted.name)
        if record is None:
            # removed meanwhile: mending it would bring it back
            continue
        manifest, candidate = None, None
        with suppress(IntegrityError):
            manifest = store.manifest(record.manifest)
        damaged = frozenset()
        if manifest is not None:
            folder = store.pack_path(record.manifest)
            damaged = damaged_blobs(store, folder, manifest.blobs)
            if not damaged and whole_pack(store, manifest):
                continue
        candidate = found(record, catalogue)
        manifest = manifest or candidate.manifest()
        card = base_for(manifest, changes, catalogue.bases)
        changes.put_pack(PackStep(record, manifest, candidate, card, damaged))
    return changes.prepared()


def known_manifests(generation: Generation, store: Store) -> dict[str, Manifest]:
    """The manifests of the installed packs, without those that are damaged: a pack nothing is
    known of counts as not installed, and must not keep others from being installed."""
    known = {}
    for pack in generation.packs:
        with suppress(IntegrityError):
            known[pack.name] = store.manifest(pack.manifest)
    return known
