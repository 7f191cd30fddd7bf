"""Changing what is installed: one journal, one commit point, redoable from anywhere.

A change writes its journal, builds folders, writes the new generation, flips `current` (the commit
point), frees what nothing refers to any more, and removes the journal. Killed before the flip it
never happened; killed after it the rest is done by the next writer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from mbpm.files import remove, write_atomic
from mbpm.home import Home
from mbpm.lock import writer_lock
from mbpm.output import Output
from specs.base_card import BaseCard
from specs.errors import IntegrityError
from specs.generation import Generation, InstalledBase, InstalledPack
from specs.manifest import Manifest


class Writer:
    """The right to change a home, held for the length of one command."""

    def __init__(self, home: Home, command: str) -> None:
        self.home = home
        self._command = command

    def commit(
        self,
        packs: Iterable[InstalledPack],
        bases: Iterable[InstalledBase],
        *,
        new_packs: Iterable[Manifest] = (),
        new_bases: Iterable[BaseCard] = (),
    ) -> Generation:
        """Make (packs, bases) what is installed.

        Args:
            packs: Every pack of the new generation.
            bases: Every base of the new generation.
            new_packs: Manifests of those packs whose folder may not exist yet; blobs are here.
            new_bases: Likewise for bases.

        Returns:
            The generation that counts from now on.
        """
        new_packs, new_bases = list(new_packs), list(new_bases)
        old = self.home.current()
        new = Generation(
            number=old.number + 1,
            created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            command=self._command,
            packs=tuple(sorted(packs, key=lambda p: p.name)),
            bases=tuple(sorted(bases, key=lambda b: b.name)),
        )
        added = [["pack", m.digest()] for m in new_packs] + [
            ["base", c.digest()] for c in new_bases
        ]
        before, after = self._references(old), self._references(new)
        # what is being added is not in the store as a document yet
        for document, blobs in [(m, m.blobs) for m in new_packs] + [
            (c, tuple(f.blob for f in c.files)) for c in new_bases
        ]:
            after.add(("blob", document.digest()))
            after.update(("blob", b.sha256) for b in blobs)
        journal = {
            "to": new.number,
            "added": [a for a in added if tuple(a) not in before],
            "dropped": sorted(before - after),
        }
        write_atomic(self.home.journal, json.dumps(journal).encode())
        for manifest in new_packs:
            self.home.store.make_pack(manifest)
        for card in new_bases:
            self.home.store.make_base(card)
        write_atomic(self.home.generation_path(new.number), new.canonical())
        write_atomic(self.home.pointer, f"{new.number}\n".encode())
        self._finish(journal)
        return new

    def recover(self) -> None:
        """Finish or roll back what a killed writer left, and clear its staging."""
        journal = self._journal()
        if journal is not None:
            if self.home.current().number != journal["to"]:
                remove(self.home.generation_path(journal["to"]))
                journal = {**journal, "dropped": journal["added"]}
            self._finish(journal)
        remove(self.home.staging)

    def _journal(self) -> dict[str, Any] | None:
        try:
            value = json.loads(self.home.journal.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            value = None
        if isinstance(value, dict) and {"to", "added", "dropped"} <= value.keys():
            return value
        # it is written atomically, so this was somebody's editor; the pointer still decides
        remove(self.home.journal)
        return None

    def _finish(self, journal: dict[str, Any]) -> None:
        for kind, digest in journal["dropped"]:
            self.home.store.drop(kind, digest)
        remove(self.home.journal)

    def _references(self, generation: Generation) -> set[tuple[str, str]]:
        """Every folder and blob a generation needs, as (kind, digest)."""
        store, found = self.home.store, set()
        for pack in generation.packs:
            found |= {("pack", pack.manifest), ("blob", pack.manifest)}
            # a damaged pack can still be removed; only its blobs are then not freed
            try:
                blobs = [b.sha256 for b in store.manifest(pack.manifest).blobs]
            except IntegrityError:
                blobs = []
            found |= {("blob", b) for b in blobs}
        for base in generation.bases:
            found |= {("base", base.card), ("blob", base.card)}
            try:
                blobs = [f.blob.sha256 for f in store.card(base.card).files]
            except IntegrityError:
                blobs = []
            found |= {("blob", b) for b in blobs}
        return found


@contextmanager
def writer(home: Home, out: Output, command: str) -> Iterator[Writer]:
    """Take the writer lock, put right what an earlier writer left, and hand out the right to write.

    Raises:
        MbpmError: another process holds the lock for longer than the wait.
    """
    with writer_lock(home.path, out):
        right = Writer(home, command)
        right.recover()
        try:
            yield right
        finally:
            # a full disk must not stay full of what could not be finished
            remove(home.staging)
