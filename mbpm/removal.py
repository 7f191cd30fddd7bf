"""Removing packs and bases: what may go, and what that frees."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from mbpm.home import Home
from mbpm.plan import plan_removal
from mbpm.store import Store
from specs.errors import IntegrityError, NotFoundError, ResolutionError
from specs.generation import Generation, InstalledBase, InstalledPack, Plan


@dataclass(frozen=True)
class Removal:
    """A removal that may go ahead."""

    plan: Plan
    packs: tuple[InstalledPack, ...]
    """The packs that stay."""
    bases: tuple[InstalledBase, ...]
    """The bases that stay."""


def prepare_removal(home: Home, packs: Sequence[str], bases: Sequence[str]) -> Removal:
    """Work out what removing these would do; changes nothing.

    Raises:
        NotFoundError: one of them is not installed.
        ResolutionError: something that stays needs one of them.
    """
    before, store = home.current(), home.store
    for name in packs:
        if before.pack(name) is None:
            raise _unknown(name, "pack", [p.name for p in before.packs], "`mbpm list`")
    for name in bases:
        if before.base(name) is None:
            raise _unknown(name, "base", [b.name for b in before.bases], "`mbpm base list`")
    kept = [p for p in before.packs if p.name not in packs]
    _check_needed(kept, packs, bases, store)
    stay = [b for b in before.bases if b.name not in bases]
    shared = _blobs(
        Generation(number=0, created="", command="", packs=tuple(kept), bases=tuple(stay)), store
    )
    gone_packs, gone_bases = [], []
    for pack in before.packs:
        if pack.name in packs:
            own = _pack_blobs(pack, store).items() - shared.items()
            gone_packs.append((pack.name, pack.version, sum(size for _, size in own)))
    for base in before.bases:
        if base.name in bases:
            own = _base_blobs(base, store).items() - shared.items()
            gone_bases.append((base.name, sum(size for _, size in own)))
    return Removal(plan_removal(gone_packs, gone_bases), tuple(kept), tuple(stay))


def _unknown(name: str, what: str, installed: list[str], command: str) -> NotFoundError:
    close = difflib.get_close_matches(name, installed, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"{command} shows what is installed"
    return NotFoundError(f"{what} `{name}` is not installed", hint=hint)


def _check_needed(
    kept: Sequence[InstalledPack], packs: Sequence[str], bases: Sequence[str], store: Store
) -> None:
    for pack in kept:
        if pack.base in bases:
            raise ResolutionError(
                f"{pack.name} {pack.version} needs base {pack.base}",
                hint=f"`mbpm remove {pack.name}` first",
            )
        try:
            requires = store.manifest(pack.manifest).requires
        except IntegrityError:
            # a damaged pack cannot say what it needs, and must not stand in the way
            continue
        provided = {q for p in kept for q in _provides(p, store)} | {p.name for p in kept}
        for name in packs:
            if name in requires and name not in provided:
                raise ResolutionError(
                    f"{pack.name} {pack.version} requires {name}",
                    hint=f"`mbpm remove {name} {pack.name}` removes both",
                )


def _provides(pack: InstalledPack, store: Store) -> tuple[str, ...]:
    try:
        return store.manifest(pack.manifest).provides
    except IntegrityError:
        return ()


def _blobs(generation: Generation, store: Store) -> dict[str, int]:
    found: dict[str, int] = {}
    for pack in generation.packs:
        found |= _pack_blobs(pack, store)
    for base in generation.bases:
        found |= _base_blobs(base, store)
    return found


def _pack_blobs(pack: InstalledPack, store: Store) -> dict[str, int]:
    try:
        return {b.sha256: b.size for b in store.manifest(pack.manifest).blobs}
    except IntegrityError:
        return {}


def _base_blobs(base: InstalledBase, store: Store) -> dict[str, int]:
    try:
        return {f.blob.sha256: f.blob.size for f in store.card(base.card).files}
    except IntegrityError:
        return {}
