"""Packs and bases to take along in a file; nothing that is installed changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specs.errors import IntegrityError, MbpmError

if TYPE_CHECKING:
    from mbpm.catalogue import BaseOffer, Candidate, Catalogue
    from mbpm.fetch import AnySource, Wanted
    from mbpm.home import Home
    from mbpm.resolver import Request
    from mbpm.state import State
    from mbpm.store import Store
    from specs.base_card import BaseBlob, BaseCard
    from specs.blobs import Blob
    from specs.bundle import Bundle
    from specs.generation import InstalledBase, InstalledPack
    from specs.index_line import IndexLine
    from specs.manifest import Manifest

UNPUBLISHED = "1970-01-01T00:00:00Z"
"""`IndexLine.published` of what was never published: the same content, the same line."""


@dataclass(frozen=True)
class PackItem:
    """One version of a pack."""

    line: IndexLine
    manifest: Manifest
    registry: str | None
    """The label of the registry it comes from; None where it is from none."""
    auto: bool
    """Whether it comes along only because another one needs it."""
    sources: Callable[[Blob, Path], Sequence[AnySource]]

    @property
    def title(self) -> str:
        """What to call it."""
        return f"{self.line.name} {self.line.version}"


@dataclass(frozen=True)
class BaseItem:
    """One base."""

    card: BaseCard
    registry: str | None
    offer: BaseOffer | None
    """Where its bytes come from that are not in the store."""


def choose(
    home: Home,
    catalogue: Catalogue,
    requests: Sequence[Request],
    *,
    requires: bool = True,
    recommends: bool = True,
    prereleases: bool = False,
) -> list[PackItem]:
    """The packs that an empty machine with any hardware would get, by name.

    Args:
        home: Whose bases are known beside those on offer.
        catalogue: Where packs come from.
        requests: What is asked for.
        requires: Whether what they require comes along.
        recommends: Whether what they recommend comes along too.
        prereleases: Whether any pre-release will do.

    Raises:
        NotFoundError, ResolutionError: as `mbpm.resolver.resolve`.
    """
    from mbpm.resolver import Problem, resolve
    from specs.names import HARDWARE
    from specs.versions import Version

    offers: dict[str, Candidate] = {}

    def known(candidates: Iterable[Candidate]) -> list[Candidate]:
        found = list(candidates)
        offers.update({c.line.manifest: c for c in found})
        return found if requires else [_alone(c) for c in found]

    pinned = {r.name: known([r.pinned])[0] for r in requests if r.pinned is not None}
    bases = {o.card.fingerprint: o.card.name for o in catalogue.bases()}
    bases |= {b.fingerprint: b.name for b in home.current().bases}
    solution = resolve(
        Problem(
            requests=tuple(type(r)(r.name, r.requirement, pinned.get(r.name)) for r in requests),
            installed={},
            lookup=lambda name: known(catalogue.candidates(name)),
            providers=catalogue.providers,
            bases=bases,
            hardware=dict.fromkeys(HARDWARE, Version("999999.0.0")),
            recommends=recommends and requires,
            prereleases=prereleases,
        )
    )
    asked = {r.name for r in requests}
    return [
        _item(offers[c.line.manifest], auto=name not in asked)
        for name, c in sorted(solution.packs.items())
    ]


def _alone(candidate: Candidate) -> Candidate:
    """The same version, as if it needed nothing else."""
    from mbpm.catalogue import Candidate

    free: Mapping[str, object] = {"requires": {}, "recommends": {}, "conflicts": {}, "replaces": {}}
    return Candidate(candidate.line.model_copy(update=free), candidate.origin)


def _item(candidate: Candidate, *, auto: bool) -> PackItem:
    origin, line = candidate.origin, candidate.line
    assert origin is not None
    registry = registry_label(origin.label)
    if registry is None:
        line = line.model_copy(update={"published": UNPUBLISHED})
    return PackItem(line, candidate.manifest(), registry, auto, origin.sources)


def registry_label(label: str) -> str | None:
    """The label of a registry; None for that of a folder, an archive or a bundle."""
    from mbpm.registries.origins import LOCAL

    return None if label.startswith(LOCAL) else label


def installed_packs(home: Home, catalogue: Catalogue) -> list[PackItem]:
    """Everything that is installed, by name.

    Raises:
        IntegrityError: a manifest is damaged.
    """
    return [_installed(home, catalogue, p) for p in home.current().packs]


def _installed(home: Home, catalogue: Catalogue, record: InstalledPack) -> PackItem:
    from mbpm.catalogue import line_of

    manifest = home.store.manifest(record.manifest)
    candidate = None
    # the bytes are here; what the registry says of them is nice to have
    with suppress(MbpmError):
        candidate = catalogue.find(record)
    registry = registry_label(record.registry)
    if candidate is None or candidate.origin is None:
        line = line_of(manifest).model_copy(update={"published": UNPUBLISHED})
        return PackItem(line, manifest, registry, record.auto, lambda blob, scratch: [])
    line = candidate.line
    if registry is None:
        line = line.model_copy(update={"published": UNPUBLISHED})
    return PackItem(line, manifest, registry, record.auto, candidate.origin.sources)


def installed_bases(home: Home, catalogue: Catalogue) -> list[BaseItem]:
    """Every base that is installed; raises as `installed_packs`."""
    return [_installed_base(home, b, catalogue.bases()) for b in home.current().bases]


def _installed_base(home: Home, base: InstalledBase, offers: Iterable[BaseOffer]) -> BaseItem:
    card = home.store.card(base.card)
    offer = next((o for o in offers if o.card.fingerprint == base.fingerprint), None)
    return BaseItem(card, registry_label(base.registry), offer)


def bases_of(home: Home, catalogue: Catalogue, packs: Iterable[PackItem]) -> list[BaseItem]:
    """The bases that packs were made for, by name.

    Raises:
        IntegrityError: one is neither on offer nor installed.
    """
    offers, found = catalogue.bases(), {}
    for pack in packs:
        base = pack.line.base
        offer = next((o for o in offers if o.card.fingerprint == base.fingerprint), None)
        if offer is not None:
            item = BaseItem(offer.card, registry_label(offer.label), offer)
            found[offer.card.name] = item
            continue
        record = next((b for b in home.current().bases if b.fingerprint == base.fingerprint), None)
        if record is None:
            raise IntegrityError(
                f"{pack.title} was made for base {base.name} ({base.fingerprint[:12]}), which no "
                "registry offers",
                hint="`--registry` names a registry that has it",
            )
        found[record.name] = _installed_base(home, record, offers)
    return [found[name] for name in sorted(found)]


def blobs_of(packs: Iterable[PackItem], bases: Iterable[BaseItem] = ()) -> dict[str, Blob]:
    """All files by digest; manifests and cards are none."""
    found = {b.sha256: b for p in packs for b in p.manifest.blobs}
    return found | {f.blob.sha256: f.blob for b in bases for f in b.card.files}


def contents(
    packs: Sequence[PackItem], bases: Sequence[BaseItem]
) -> tuple[Bundle, dict[str, bytes]]:
    """The table of contents of a bundle, and the manifests and cards it lists, by digest.

    Raises:
        IntegrityError: the index of a registry and a manifest do not agree.
    """
    from specs.bundle import Bundle, BundledBase, BundledBlob, BundledPack

    for pack in packs:
        if (field := pack.line.disagreement(pack.manifest)) is not None:
            raise IntegrityError(
                f"{pack.title}: `{field}` in its registry's index is not what its manifest says"
            )
    documents = {p.line.manifest: p.manifest.canonical() for p in packs}
    documents |= {b.card.digest(): b.card.canonical() for b in bases}
    sizes = {digest: len(raw) for digest, raw in documents.items()}
    sizes |= {digest: blob.size for digest, blob in blobs_of(packs, bases).items()}
    listed = [BundledPack(line=p.line, registry=p.registry, auto=p.auto) for p in packs]
    based = [
        BundledBase(name=b.card.name, card=b.card.digest(), registry=b.registry) for b in bases
    ]
    content = Bundle(
        packs=tuple(sorted(listed, key=lambda p: p.line.name)),
        bases=tuple(sorted(based, key=lambda b: b.name)),
        blobs=tuple(BundledBlob(sha256=d, size=sizes[d]) for d in sorted(sizes)),
    )
    return content, documents


def missing_bytes(
    home: Home, scratch: Store, packs: Sequence[PackItem], bases: Sequence[BaseItem] = ()
) -> int:
    """Bytes that `bring` would have to fetch."""
    blobs = blobs_of(packs, bases).values()
    return sum(b.size for b in blobs if not home.store.has(b) and not scratch.has(b))


def bring(
    state: State, scratch: Store, packs: Sequence[PackItem], bases: Sequence[BaseItem] = ()
) -> dict[str, Path]:
    """Have the bytes of everything on this machine, without touching what is installed.

    Args:
        state: The command.
        scratch: A store of our own for what is not in the home's. Killed on the way, the next
            attempt goes on there.
        packs: The packs.
        bases: The bases.

    Returns:
        Digest -> file with the bytes.

    Raises:
        MbpmError: as `mbpm.fetch.obtain_all`.
    """
    from mbpm.fetch import obtain_all

    home = state.home
    wanted = {w.blob.sha256: w for w in _wanted(home, packs, bases, scratch.staging)}
    obtain_all(scratch, list(wanted.values()), state.network, state.out)
    return {
        digest: (scratch if digest in wanted else home.store).blob_path(digest)
        for digest in blobs_of(packs, bases)
    }


def _wanted(
    home: Home, packs: Sequence[PackItem], bases: Sequence[BaseItem], unpacked: Path
) -> Iterator[Wanted]:
    from mbpm.fetch import Wanted

    for pack in packs:
        for blob in pack.manifest.blobs:
            if not home.store.has(blob):
                what = f"{blob.path} of {pack.title}"
                sources = pack.sources(blob, unpacked)
                yield Wanted(blob, _some(sources, what), what, pack.title)
    for base in bases:
        title = f"base {base.card.name}"
        for file in base.card.files:
            if not home.store.has(file.blob):
                what = f"{file.blob.path} of {title}"
                sources = _base_sources(base, file)
                folder = base.offer.folder if base.offer else Path("/")
                yield Wanted(file.blob, _some(sources, what), what, title, folder)


def _base_sources(base: BaseItem, file: BaseBlob) -> Sequence[AnySource]:
    return base.offer.sources(file) if base.offer else ()


def _some(sources: Sequence[AnySource], what: str) -> Sequence[AnySource]:
    if not sources:
        raise IntegrityError(
            f"{what} is missing from the store, and no registry has it",
            hint="`mbpm verify` tells what is damaged and how to mend it",
        )
    return sources


def scratch_store(folder: Path) -> Store:
    """A store for what is only passing through, in a folder of its own."""
    from mbpm.store import Store

    return Store(folder, folder / "staging")


def discard(scratch: Store) -> None:
    """Remove such a store, unless another process is fetching into it."""
    from mbpm.fetch.parts import unfinished
    from mbpm.files import remove

    free = {u.path for u in unfinished(scratch.parts)}
    if all(part in free for part in scratch.parts.glob("*.part")):
        remove(scratch.root)
