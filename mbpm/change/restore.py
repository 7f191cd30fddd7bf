"""Working out how to get exactly the packs and bases of a record: an earlier generation, a lock."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from mbpm.change.bases import base_for
from mbpm.change.steps import BaseStep, Changes, PackStep, Prepared, found
from mbpm.history import mark_words
from mbpm.inventory import whole_base, whole_pack
from specs.errors import IntegrityError, ResolutionError
from specs.generation import InstalledBase, InstalledPack

if TYPE_CHECKING:
    from mbpm.change.steps import Supply
    from mbpm.home import Home


def prepare_exact(
    home: Home,
    packs: Sequence[InstalledPack],
    catalogue: Supply,
    *,
    bases: Sequence[InstalledBase] | None = None,
) -> Prepared:
    """What it takes to have exactly these packs, and no others.

    Args:
        home: Where to have them.
        packs: Their records.
        catalogue: Where bytes come from that are not in the store any more.
        bases: Exactly these bases; None: those the packs need beside the ones there are.

    Raises:
        ResolutionError: a pack or base is not here any more and cannot be had.
    """
    changes = Changes.on(home)
    before, store = changes.before, home.store
    wanted = {p.name: p for p in packs}
    for name in [n for n in changes.packs if n not in wanted]:
        changes.remove_pack(name)
    for base in bases or ():
        _put_base(base, changes, catalogue)
    for record in packs:
        old = before.pack(record.name)
        if old is not None and old.manifest == record.manifest:
            with suppress(IntegrityError):
                if whole_pack(store, store.manifest(record.manifest)):
                    if old != record:
                        changes.mark_pack(record, mark_words(old, record))
                    continue
        _put_pack(record, changes, catalogue)
    if bases is not None:
        kept = {b.name for b in bases}
        for name in [n for n in changes.bases if n not in kept]:
            changes.remove_base(name)
    return changes.prepared()


def _put_pack(record: InstalledPack, changes: Changes, catalogue: Supply) -> None:
    store = changes.store
    manifest, candidate = None, None
    with suppress(IntegrityError):
        manifest = store.manifest(record.manifest)
    if manifest is None or not all(store.has(b) for b in manifest.blobs):
        candidate = found(record, catalogue, choosable=False)
        manifest = candidate.manifest()
    card = base_for(manifest, changes, catalogue.bases)
    new = record.model_copy(update={"base": card.name})
    changes.put_pack(PackStep(new, manifest, candidate, card))


def _put_base(record: InstalledBase, changes: Changes, catalogue: Supply) -> None:
    store = changes.store
    card = None
    with suppress(IntegrityError):
        card = store.card(record.card)
    if card is not None and whole_base(store, card):
        old = changes.before.base(record.name)
        if old is not None and old.card == record.card:
            if old != record:
                changes.mark_base(record, mark_words(old, record))
        else:
            changes.put_base(BaseStep(record, card, None))
        return
    offer = catalogue.find_base(record)
    if offer is None:
        raise ResolutionError(
            f"base {record.name} ({record.fingerprint[:12]}) cannot be had from "
            f"{record.registry} any more",
            hint="`mbpm registry add` adds one that has it",
        )
    new = record.model_copy(update={"card": offer.card.digest()})
    changes.put_base(BaseStep(new, offer.card, offer))
