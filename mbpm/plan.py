"""What a command is about to do: computed from values, shown before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from specs.base_card import BaseCard
from specs.blobs import Blob
from specs.generation import Action, Plan, PlannedBase, PlannedPack
from specs.index_line import IndexLine
from specs.manifest import ADAPTER_FILE, Manifest
from specs.versions import Version

if TYPE_CHECKING:
    from mbpm.output import Output


def plan_pack(
    manifest: Manifest, line: IndexLine, old: str | None, present: Callable[[Blob], bool]
) -> PlannedPack:
    """A pack to install; `present` tells which blobs need not be fetched."""
    missing = sum(b.size for b in manifest.blobs if not present(b))
    action: Action = "install"
    if old is not None and old == manifest.version:
        action = "repair"
    elif old is not None:
        action = "upgrade" if Version(old) < Version(manifest.version) else "downgrade"
    return PlannedPack(
        name=manifest.name,
        action=action,
        old=old,
        new=manifest.version,
        line=line,
        fetch_bytes=missing,
        disk_bytes=missing,
        memory_bytes=manifest.blob(ADAPTER_FILE).size,
    )


def plan_base(card: BaseCard, present: Callable[[Blob], bool]) -> PlannedBase:
    """A base to install."""
    missing = sum(f.blob.size for f in card.files if not present(f.blob))
    return PlannedBase(
        name=card.name,
        action="install",
        fetch_bytes=missing,
        disk_bytes=missing,
        memory_bytes=card.resident_bytes,
    )


def plan_removal(
    packs: Sequence[tuple[str, str, int]], bases: Sequence[tuple[str, int]] = ()
) -> Plan:
    """A removal.

    Args:
        packs: Name, version and bytes that become free.
        bases: Name and bytes that become free.
    """
    return Plan(
        packs=tuple(
            PlannedPack(name=n, action="remove", old=v, new=None, disk_bytes=-size)
            for n, v, size in packs
        ),
        bases=tuple(PlannedBase(name=n, action="remove", disk_bytes=-size) for n, size in bases),
    )


def show(plan: Plan, out: Output, resident: int = 0) -> None:
    """Print a plan for people.

    Args:
        plan: What is about to happen.
        out: Where to.
        resident: Bytes of memory that base and packs take together afterwards; 0 to leave it out.
    """
    from mbpm.output import size

    for pack in plan.packs:
        if pack.new is None:
            out.line(f"remove   {pack.name} {pack.old}")
        elif pack.old is None:
            out.line(f"install  {pack.name} {pack.new}")
        elif pack.old == pack.new:
            out.line(f"repair   {pack.name} {pack.new}")
        else:
            out.line(f"change   {pack.name} {pack.old} -> {pack.new}")
        if pack.line is not None and pack.line.forced:
            out.warn(f"{pack.name} was published in spite of: {'; '.join(pack.line.forced)}")
    for base in plan.bases:
        out.line(f"{base.action:<7}  base {base.name}")
    if plan.fetch_bytes or any(p.new for p in plan.packs) or resident:
        out.line(f"fetch    {size(plan.fetch_bytes)}")
    verb = "frees" if plan.disk_bytes < 0 else "takes"
    out.line(f"disk     {verb} {size(abs(plan.disk_bytes))}")
    if resident:
        out.line(f"memory   {size(resident)} when resident")
