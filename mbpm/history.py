"""What was changed and when, and where undo and redo lead: pure, over generations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from specs.generation import Generation, InstalledBase, InstalledPack

ChangeKind = Literal["install", "remove", "upgrade", "downgrade", "replace", "mark"]


@dataclass(frozen=True)
class Difference:
    """What became of one pack or base from one generation to the next."""

    kind: ChangeKind
    name: str
    """A base's is `base NAME`."""
    old: str | None
    """Version, or the beginning of a base's fingerprint."""
    new: str | None
    reason: str = ""
    """Which marks changed, in words."""

    def __str__(self) -> str:
        if self.kind == "install":
            return f"+{self.name} {self.new}"
        if self.kind == "remove":
            return f"-{self.name} {self.old}"
        if self.kind == "mark":
            return f"{self.name}: {self.reason}"
        if self.old == self.new:
            return f"{self.name} {self.new} (other bytes)"
        return f"{self.name} {self.old} -> {self.new}"


def differences(old: Generation, new: Generation) -> list[Difference]:
    """What changed between two generations, packs first, by name."""
    return [
        *(
            _pack(name, old.pack(name), new.pack(name))
            for name in sorted({p.name for p in (*old.packs, *new.packs)})
            if old.pack(name) != new.pack(name)
        ),
        *_bases(old, new),
    ]


def _pack(name: str, old: InstalledPack | None, new: InstalledPack | None) -> Difference:
    from specs.versions import Version

    if old is None or new is None:
        was, now = old.version if old else None, new.version if new else None
        return Difference("install" if old is None else "remove", name, was, now)
    kind: ChangeKind
    if old.manifest == new.manifest:
        return Difference("mark", name, old.version, new.version, mark_words(old, new))
    if old.version == new.version:
        kind = "replace"
    else:
        kind = "upgrade" if Version(old.version) < Version(new.version) else "downgrade"
    return Difference(kind, name, old.version, new.version)


def mark_words(old: InstalledPack | InstalledBase, new: InstalledPack | InstalledBase) -> str:
    """What is recorded otherwise of a pack or base that stays as it is."""
    words = []
    if old.auto != new.auto:
        words.append("there for others only" if new.auto else "wanted itself")
    if isinstance(old, InstalledPack) and isinstance(new, InstalledPack):
        if old.held != new.held:
            words.append("held" if new.held else "no longer held")
        if old.pin != new.pin:
            words.append(f"pinned to {new.pin}" if new.pin else "no longer pinned")
    if old.registry != new.registry:
        words.append(f"now from {new.registry}")
    return ", ".join(words) or "its record changed"


def _bases(old: Generation, new: Generation) -> Iterator[Difference]:
    for name in sorted({b.name for b in (*old.bases, *new.bases)}):
        before, after = old.base(name), new.base(name)
        was = before.fingerprint[:12] if before else None
        now = after.fingerprint[:12] if after else None
        if was != now:
            kind: ChangeKind = "install" if was is None else "remove" if now is None else "replace"
            yield Difference(kind, f"base {name}", was, now)
        elif before and after and before.card == after.card and before != after:
            yield Difference("mark", f"base {name}", was, now, mark_words(before, after))


@dataclass(frozen=True)
class Position:
    """Where the state stands between changes that can be taken back and made again."""

    undo: int | None
    """The generation whose content the last change replaced; None where there is nothing left."""
    redo: int | None
    """The generation whose content was taken back last; None after any other change."""


def position(generations: Sequence[Generation]) -> Position:
    """Where undo and redo lead from the newest of these generations.

    Args:
        generations: In order, oldest first; without gaps at the end that matters.
    """
    done, undone = [0], list[int]()
    for generation in generations:
        if generation.cause == "undo":
            if len(done) > 1:
                undone.append(done.pop())
        elif generation.cause == "redo":
            if undone:
                done.append(undone.pop())
        else:
            done.append(generation.number)
            undone.clear()
    return Position(
        done[-2] if len(done) > 1 else None,
        undone[-1] if undone else None,
    )
