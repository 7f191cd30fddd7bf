"""What is different in a new lock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbpm.output import Output
    from specs.lockfile import Lock, LockedBase, LockedPack


@dataclass(frozen=True)
class Change:
    """A pack or base that is in one of two locks, or in both and not the same."""

    old: LockedPack | LockedBase | None
    new: LockedPack | LockedBase | None

    @property
    def name(self) -> str:
        """Of what."""
        entry = self.new or self.old
        assert entry is not None
        return entry.name


def changes(old: Lock | None, new: Lock) -> list[Change]:
    """Packs first, then bases, by name."""
    found = []
    for before, after in (
        (old.packs if old else (), new.packs),
        (old.bases if old else (), new.bases),
    ):
        olds = {e.name: e for e in before}
        news = {e.name: e for e in after}
        found += [
            Change(olds.get(n), news.get(n))
            for n in sorted(olds.keys() | news.keys())
            if olds.get(n) != news.get(n)
        ]
    return found


def show(found: list[Change], out: Output) -> None:
    """Print them, for people."""
    for change in found:
        old, new = _title(change.old), _title(change.new)
        if change.old is None:
            out.line(f"added    {new}")
        elif change.new is None:
            out.line(f"dropped  {old}")
        elif old != new:
            out.line(f"changed  {old} -> {new.rpartition(' ')[2]}")
        else:
            out.line(f"changed  {new} ({', '.join(_fields(change))})")


def _title(entry: LockedPack | LockedBase | None) -> str:
    if entry is None:
        return ""
    version = getattr(entry, "version", None)
    return f"{entry.name} {version}" if version else f"base {entry.name}"


def _fields(change: Change) -> Iterator[str]:
    """What of an entry is another although the version is not, in words."""
    assert change.old is not None and change.new is not None
    old, new = change.old.model_dump(), change.new.model_dump()
    for key in new:
        if old.get(key) != new[key]:
            yield "needed by others only" if key == "auto" and new[key] else _WORDS.get(key, key)


_WORDS = {"auto": "wanted itself", "blobs": "files"}


def document(found: list[Change]) -> list[dict[str, object]]:
    """Them in JSON."""
    return [
        {
            "kind": "pack" if hasattr(c.new or c.old, "version") else "base",
            "name": c.name,
            "old": getattr(c.old, "version", None),
            "new": getattr(c.new, "version", None),
        }
        for c in found
    ]


def warnings(found: list[Change]) -> list[str]:
    """What about them may be an attack, in words: another publisher, another registry."""
    said = []
    for change in found:
        old, new = change.old, change.new
        if old is None or new is None:
            continue
        was, now = getattr(old, "publisher", ""), getattr(new, "publisher", "")
        if was and was != now:
            by = f"by `{now}`" if now else "by nobody its registry names"
            said.append(f"{_title(new)} was published {by}, and {_title(old)} by `{was}`")
        if old.registry != new.registry:
            said.append(
                f"{_title(new)} comes from the registry {new.registry}, and came from "
                f"{old.registry}"
            )
    return said
