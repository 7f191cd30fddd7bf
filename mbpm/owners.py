"""Which packs and bases the files of a store belong to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from specs.base_card import CARD_FILE
from specs.errors import IntegrityError
from specs.manifest import MANIFEST_FILE

if TYPE_CHECKING:
    from mbpm.home import Home
    from specs.generation import Generation, InstalledBase, InstalledPack


@dataclass(frozen=True)
class OwnedFile:
    """One file of a pack or base."""

    name: str
    """Its name in the pack's or base's folder."""
    size: int
    sha256: str


@dataclass(frozen=True)
class Owner:
    """A pack or base that some generation holds."""

    kind: Literal["pack", "base"]
    name: str
    version: str
    """Empty for a base."""
    document: str
    """Digest of its manifest or card, and the name of its folder in the store."""
    profile: str
    generation: int
    installed: bool
    """Whether that is the generation that counts in its profile."""
    files: tuple[OwnedFile, ...]
    """Empty where the manifest or card is damaged."""

    @property
    def title(self) -> str:
        """What to call it."""
        return f"{self.name} {self.version}" if self.kind == "pack" else f"base {self.name}"


def owners(home: Home) -> Iterator[Owner]:
    """Every pack and base that a generation of any profile keeps, each once: as installed in the
    home's own profile where it is, else in another, else as what an earlier generation keeps.

    Raises:
        IntegrityError: as `Home.current`.
    """
    profiles = [home, *(home.with_profile(p) for p in home.profiles() if p != home.profile)]
    kept = [(p, p.current(), True) for p in profiles]
    kept += [(p, g, False) for p in profiles for g in p.generations()]
    seen: set[str] = set()
    for profile, generation, installed in kept:
        for pack in generation.packs:
            if pack.manifest not in seen:
                seen.add(pack.manifest)
                yield owner_of_pack(profile, generation, pack, installed=installed)
        for base in generation.bases:
            if base.card not in seen:
                seen.add(base.card)
                yield owner_of_base(profile, generation, base, installed=installed)


def owner_of_pack(
    home: Home, generation: Generation, pack: InstalledPack, *, installed: bool
) -> Owner:
    """A pack of a generation with its files."""
    files: list[OwnedFile] = []
    with suppress(IntegrityError):
        manifest = home.store.manifest(pack.manifest)
        files.append(OwnedFile(MANIFEST_FILE, len(manifest.canonical()), pack.manifest))
        files += (OwnedFile(b.path, b.size, b.sha256) for b in manifest.blobs)
    return Owner(
        "pack",
        pack.name,
        pack.version,
        pack.manifest,
        home.profile,
        generation.number,
        installed,
        tuple(files),
    )


def owner_of_base(
    home: Home, generation: Generation, base: InstalledBase, *, installed: bool
) -> Owner:
    """A base of a generation with its files."""
    files: list[OwnedFile] = []
    with suppress(IntegrityError):
        card = home.store.card(base.card)
        files.append(OwnedFile(CARD_FILE, len(card.canonical()), base.card))
        files += (OwnedFile(f.blob.path, f.blob.size, f.blob.sha256) for f in card.files)
    return Owner(
        "base",
        base.name,
        "",
        base.card,
        home.profile,
        generation.number,
        installed,
        tuple(files),
    )
