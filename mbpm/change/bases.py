"""Which bases a change needs, and having one because somebody asked for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from mbpm.change.steps import BaseStep
from specs.errors import IntegrityError, ResolutionError
from specs.generation import InstalledBase

if TYPE_CHECKING:
    from mbpm.catalogue import BaseOffer
    from mbpm.change.steps import Changes
    from specs.base_card import BaseCard
    from specs.manifest import Manifest


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


def want_base(offer: BaseOffer, changes: Changes) -> bool:
    """Have a base because somebody asked for it.

    Returns:
        Whether that changes anything.

    Raises:
        ResolutionError: as `base_step`.
    """
    record = changes.before.base(offer.card.name)
    if (step := base_step(offer, changes, auto=False)) is not None:
        changes.put_base(step)
        return True
    if record is None or not record.auto:
        return False
    changes.mark_base(record.model_copy(update={"auto": False}), "wanted itself")
    return True


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
