"""A plan in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbpm.output import size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mbpm.output import Output
    from specs.plan import Plan, PlannedPack

_DONE = {
    "install": "installed",
    "upgrade": "upgraded",
    "downgrade": "downgraded",
    "replace": "replaced",
    "remove": "removed",
    "purge": "purged",
    "repair": "repaired",
}


def show(
    plan: Plan, out: Output, places: Mapping[str, str], *, purge: bool = False, marks: bool = False
) -> None:
    """Print what is about to happen, for people.

    Args:
        plan: What is about to happen.
        out: Where to.
        places: Name of a pack -> the registry to name beside it.
        purge: Whether what is removed is freed at once.
        marks: Whether to name packs of which only what is recorded changes.
    """
    for pack in plan.packs:
        if pack.action == "mark" and not marks:
            continue
        reason = f" ({pack.reason})" if pack.reason else ""
        place = f" from {places[pack.name]}" if pack.name in places else ""
        out.line(f"{pack.action:<9}  {pack.name} {_versions(pack)}{place}{reason}")
        if pack.action in ("upgrade", "downgrade") and pack.line and pack.line.notes:
            out.line(f"{'':<9}    {pack.line.notes.splitlines()[0]}")
        if pack.line is not None and pack.line.forced:
            # on one line, so that none of it passes for another message
            reasons = "; ".join(" ".join(reason.split()) for reason in pack.line.forced)
            out.warn(f"{pack.name} was published in spite of: {reasons}")
        if pack.line is not None and pack.line.yanked:
            out.warn(f"{pack.name} {pack.new} was yanked from its registry")
        if pack.line is not None and pack.line.deprecated:
            out.warn(f"{pack.name} {pack.new} is deprecated: {pack.line.deprecated}")
        if pack.old_publisher is not None:
            new = pack.line.publisher if pack.line is not None else ""
            out.warn(
                f"{pack.name} {pack.old} was published by {pack.old_publisher}, and {pack.new} "
                + (f"by {new}" if new else "does not say by whom")
            )
    for base in plan.bases:
        if base.action != "mark" or marks:
            reason = f" ({base.reason})" if base.reason else ""
            out.line(f"{base.action:<9}  base {base.name}{reason}")
    for kept in plan.kept_back:
        # a pack that only has another name now has no newer version
        newer = f"{kept.newest} exists; " if kept.newest != kept.version else ""
        out.line(f"kept back  {kept.name} {kept.version} ({newer}{kept.reason})")
    for left in plan.left_out:
        out.line(f"left out   {left.name} (recommended; {left.reason})")
    actions = plan.actions - {"mark"}
    if not actions:
        return
    brings = bool(actions - {"remove", "purge"})
    if brings:
        out.line(f"fetch      {size(plan.fetch_bytes)}")
    freed = plan.fetch_bytes - plan.disk_bytes
    if plan.fetch_bytes or (brings and not freed):
        out.line(f"disk       takes {size(plan.fetch_bytes)}")
    if freed or not brings:
        when = "" if purge else " at the next `mbpm gc`"
        out.line(f"disk       frees {size(freed)}{when}")
    if plan.resident_bytes:
        out.line(f"memory     {size(plan.resident_bytes)} when resident")


def _versions(pack: PlannedPack) -> str:
    if pack.old and pack.new and pack.old != pack.new:
        return f"{pack.old} -> {pack.new}"
    return pack.new or pack.old or ""


def done(plan: Plan, out: Output) -> None:
    """Say what was done."""
    for pack in plan.packs:
        if pack.action == "mark":
            out.note(f"{pack.name} {pack.old}: {pack.reason}")
        else:
            out.note(f"{_DONE[pack.action]} {pack.name} {_versions(pack)}")
    for base in plan.bases:
        if base.action == "mark":
            out.note(f"base {base.name}: {base.reason}")
        else:
            out.note(f"{_DONE[base.action]} base {base.name}")
