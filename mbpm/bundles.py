"""Bundles as what `mbpm install` takes packs and bases from."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.offers import BaseOffer, Candidate
from registry_index.bundle import SUFFIX, BundleFile, read_bundle
from specs.errors import IntegrityError, MbpmError, NotFoundError
from specs.model import MAX_DOCUMENT_BYTES
from specs.registries import BUNDLED, is_url

if TYPE_CHECKING:
    from mbpm.fetch import AnySource
    from mbpm.home import Home
    from mbpm.registries.source import Source
    from mbpm.resolver import Request
    from specs.base_card import BaseBlob
    from specs.blobs import Blob
    from specs.bundle import BundledBase, BundledPack
    from specs.generation import InstalledBase, InstalledPack
    from specs.index_line import IndexLine
    from specs.manifest import Manifest


def is_bundle(target: str) -> bool:
    """Whether a target of `mbpm install` is meant as a bundle."""
    return target.endswith(SUFFIX)


@dataclass(frozen=True)
class BundleOrigin:
    """A bundle, as where one of its packs or bases comes from."""

    bundle: BundleFile
    registry: str | None
    """Where it came from before, as the bundle says."""

    @property
    def label(self) -> str:
        """That registry, so that upgrades come from there; else `bundle` and its path."""
        return self.registry or f"bundle {self.bundle.file.absolute()}"

    def manifest(self, line: IndexLine) -> Manifest:
        """Checked when the bundle was opened."""
        return self.bundle.manifests[line.manifest]

    def document(self, blob: Blob) -> bytes:
        """A small file of a pack, its digest checked."""
        with self.bundle.file.open("rb") as stream:
            stream.seek(self.bundle.places[blob.sha256])
            raw = stream.read(min(blob.size, MAX_DOCUMENT_BYTES))
        if hashlib.sha256(raw).hexdigest() != blob.sha256:
            raise IntegrityError(
                f"{self.bundle.file}: the bytes of `{blob.path}` do not match their digest"
            )
        return raw

    def sources(self, blob: Blob, scratch: Path) -> list[AnySource]:
        """The place in the file where the bytes stand."""
        from mbpm.fetch.wanted import PieceSource

        place = self.bundle.places.get(blob.sha256)
        if place is None:
            return []
        return [PieceSource(path=str(self.bundle.file.absolute()), offset=place)]


class BundleCatalogue:
    """Bundles in the place of registries: nothing is looked for anywhere else."""

    def __init__(self, bundles: Sequence[BundleFile], unproven: Container[str] = ()) -> None:
        """
        Args:
            bundles: The files.
            unproven: Names of packs that count as from the bundle, whatever it says.
        """
        self._bundles = bundles
        self._unproven = unproven

    def candidates(self, name: str) -> Sequence[Candidate]:
        """The version of a pack that a bundle holds; raises NotFoundError where none does."""
        found = [self._candidate(b, p) for b, p in self._packs() if p.line.name == name]
        if not found:
            files = ", ".join(str(b.file) for b in self._bundles)
            held = ", ".join(sorted(p.line.name for _, p in self._packs())) or "no packs"
            raise NotFoundError(f"no pack `{name}` in {files}", hint=f"there is {held}")
        return found

    def providers(self, name: str) -> Sequence[str]:
        """Names of packs that provide or replace a name."""
        lines = [p.line for _, p in self._packs()]
        return sorted({x.name for x in lines if name in (*x.provides, *x.replaces)})

    def prefetch(self, names: Sequence[str]) -> None:
        """As `Catalogue.prefetch`: everything is here."""

    def find(self, record: InstalledPack) -> Candidate | None:
        """The very version a record names."""
        for bundle, pack in self._packs():
            if pack.line.manifest == record.manifest:
                return self._candidate(bundle, pack)
        return None

    def bases(self) -> Sequence[BaseOffer]:
        """The bases, by name."""
        return list(self._offers.values())

    def find_base(self, record: InstalledBase) -> BaseOffer | None:
        """The very base a record names."""
        return next((o for o in self.bases() if o.card.fingerprint == record.fingerprint), None)

    def wanted(self) -> list[Candidate]:
        """The packs that somebody asked for when the bundles were made; all, where nobody did."""
        packs = list(self._packs())
        asked = [(b, p) for b, p in packs if not p.auto]
        return [self._candidate(b, p) for b, p in asked or packs]

    def unused_bases(self) -> list[str]:
        """Names of bases that no pack in the bundles needs."""
        used = {p.line.base.fingerprint for _, p in self._packs()}
        return [n for n, o in self._offers.items() if o.card.fingerprint not in used]

    def locked(self) -> Mapping[str, str]:
        """Name -> manifest digest, of everything in the bundles."""
        return {p.line.name: p.line.manifest for _, p in self._packs()}

    def _packs(self) -> Iterator[tuple[BundleFile, BundledPack]]:
        for bundle in self._bundles:
            for pack in bundle.content.packs:
                yield bundle, pack

    def _candidate(self, bundle: BundleFile, pack: BundledPack) -> Candidate:
        registry = None if pack.line.name in self._unproven else pack.registry
        return Candidate(pack.line, BundleOrigin(bundle, registry))

    @cached_property
    def _offers(self) -> dict[str, BaseOffer]:
        from mbpm.registries.folder import FolderRegistry
        from registry_index import bundled

        # what this mbpm says of a base is trusted, and only the bytes are taken from elsewhere
        trusted = {o.card.name: o for o in FolderRegistry(bundled(), BUNDLED).bases()}
        found: dict[str, BaseOffer] = {}
        for bundle in self._bundles:
            for base in bundle.content.bases:
                origin = BundleOrigin(bundle, base.registry)
                found.setdefault(base.name, _offer(origin, base, trusted.get(base.name)))
        return found


def _offer(origin: BundleOrigin, base: BundledBase, trusted: BaseOffer | None) -> BaseOffer:
    def sources(file: BaseBlob) -> list[AnySource]:
        return origin.sources(file.blob, Path()) or (trusted.sources(file) if trusted else [])

    if trusted is not None:
        return replace(trusted, find=sources)
    return BaseOffer(origin.bundle.cards[base.card], origin.label, Path("/"), sources)


@dataclass(frozen=True)
class Opened:
    """What a command line wants out of bundles."""

    catalogue: BundleCatalogue
    requests: tuple[Request, ...]
    bases: frozenset[str]
    """Bases to install although no pack needs them."""
    unknown: tuple[str, ...]
    """Addresses of registries that packs are from, and that are not configured here."""
    unproven: Mapping[str, str]
    """Packs that count as from the bundle -> the directory it says they are from."""


def open_targets(home: Home, targets: Sequence[str], registries: Sequence[str] = ()) -> Opened:
    """Read the targets of `mbpm install`, of which one is a bundle at least.

    Args:
        home: Where they are to be installed.
        targets: Bundles, and names of packs in them; every pack that was asked for when they were
            made, if none is named. Folders and archives may stand among them.
        registries: Registries named on the command line: packs may come from them although another
            one is known to have them.

    Raises:
        NotFoundError, IntegrityError: as `read_bundle`; or no bundle has a pack that is named.
        IntegrityError: a pack is said to come from another registry than it is known to come from,
            or from one whose index says otherwise.
    """
    from mbpm.change.install import parse_target
    from mbpm.resolver import Request

    bundles = [read_bundle(Path(t).expanduser()) for t in targets if is_bundle(t)]
    unproven = _check_origins(home, bundles, registries)
    catalogue = BundleCatalogue(bundles, unproven)
    requests, named = [], False
    for request in (parse_target(t) for t in targets if not is_bundle(t)):
        named = named or request.pinned is None
        requests.append(request if request.pinned else _found(request, catalogue))
    if not named:
        requests += (Request(c.line.name, pinned=c) for c in catalogue.wanted())
    bases = frozenset(() if named else catalogue.unused_bases())
    return Opened(catalogue, tuple(requests), bases, _unknown(home, bundles), unproven)


def _unknown(home: Home, bundles: Sequence[BundleFile]) -> tuple[str, ...]:
    from mbpm.registries import config

    known = {k.address for k in config.in_order(config.read(home.path))}
    named = {p.registry for b in bundles for p in b.content.packs if p.registry}
    return tuple(sorted(r for r in named - known if is_url(r)))


def _found(request: Request, catalogue: BundleCatalogue) -> Request:
    """The request for the very version that a bundle holds."""
    found = catalogue.candidates(request.name)
    wanted = request.requirement
    for candidate in found:
        if wanted is None or wanted.admits(candidate.version, prereleases=True):
            return type(request)(request.name, pinned=candidate)
    raise NotFoundError(
        f"no bundle holds `{request.name} {wanted}`",
        hint=f"there is {request.name} {', '.join(c.line.version for c in found)}",
    )


def _check_origins(
    home: Home, bundles: Sequence[BundleFile], registries: Sequence[str]
) -> dict[str, str]:
    """Refuse what a bundle says of where a pack comes from, against what is known here.

    Returns:
        Packs said to come from a directory that nobody named here, and which. It need not be the
        one that was meant, and who can write there would decide about later versions.
    """
    from mbpm.catalogue import Catalogue
    from mbpm.fetch.network import Network
    from mbpm.registries import config, origins

    configured = config.in_order(config.read(home.path))
    addresses = {k.address for k in configured}
    told = {config.named(text, configured).address for text in registries}
    known = origins.read(home)
    installed = {p.name: p.registry for p in home.current().packs}
    known |= {n: r for n, r in installed.items() if not r.startswith(origins.LOCAL)}
    here = Catalogue.open(home, Network(offline=True), ())
    unproven: dict[str, str] = {}
    for bundle in bundles:
        for pack in bundle.content.packs:
            name, claim = pack.line.name, pack.registry
            if claim is None or claim in told:
                continue
            says = f"{bundle.file}: says that `{name}` comes from the registry {here.called(claim)}"
            if known.get(name, claim) != claim:
                raise IntegrityError(
                    f"{says}, and here it comes from {here.called(known[name])}",
                    hint=f"`--registry {here.called(claim)}` takes it from there from now on, if "
                    "that is what you want",
                )
            if name not in known and claim not in addresses and not is_url(claim):
                unproven[name] = claim
                continue
            source = here.source(claim) if claim in addresses else None
            wrong = _contradicted(source, pack.line, bound=name in known) if source else None
            if wrong is not None:
                raise IntegrityError(
                    f"{says}, {wrong}",
                    hint=f"`--registry {here.called(claim)}` takes the bundle's word for it, if "
                    "that is what you want",
                )
    return unproven


def _contradicted(source: Source, line: IndexLine, *, bound: bool) -> str | None:
    """What an index that is here has against a version being the registry's, in words; one that
    the index does not know yet is nothing against it.

    Args:
        source: The registry, asked for what is here only.
        line: The version.
        bound: Whether the name is known to be the registry's.
    """
    try:
        own = {x.version: x.manifest for x in source.lines(line.name)}
    except NotFoundError:
        return None if bound else "which has no such pack"
    except MbpmError:
        return None
    if own.get(line.version, line.manifest) != line.manifest:
        return f"whose {line.name} {line.version} is another"
    return None
