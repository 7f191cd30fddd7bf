"""Changing what is installed: one journal, one commit point, redoable from anywhere.

A change writes its journal, builds folders, writes the new generation, flips `current` (the commit
point), runs the triggers that what is installed now calls for, and removes the journal. Killed
before the flip it never happened; killed after it the rest is done by the next writer. The bytes of
what is no longer installed stay, so that going back needs no network; `mbpm.garbage` frees them.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mbpm.files import remove, write_atomic
from mbpm.lock import writer_lock
from specs.errors import IntegrityError, MbpmError, NotFoundError, UsageError
from specs.generation import Cause, Generation, InstalledBase, InstalledPack

if TYPE_CHECKING:
    from mbpm.home import Home
    from mbpm.output import Output
    from specs.base_card import BaseCard
    from specs.manifest import Manifest


class Writer:
    """The right to change a home, held for the length of one command."""

    def __init__(self, home: Home, out: Output, command: str) -> None:
        self.home = home
        self._out = out
        self._command = command

    def commit(
        self,
        packs: Iterable[InstalledPack],
        bases: Iterable[InstalledBase],
        *,
        new_packs: Iterable[Manifest] = (),
        new_bases: Iterable[BaseCard] = (),
        anew: Container[str] = (),
        cause: Cause = "change",
        restores: int | None = None,
    ) -> Generation:
        """Make (packs, bases) what is installed.

        Args:
            packs: Every pack of the new generation.
            bases: Every base of the new generation.
            new_packs: Manifests of those packs whose folder may not be there or not be whole; their
                blobs are in the store.
            new_bases: Likewise for bases.
            anew: Digests of those manifests and cards whose folder is replaced in any case.
            cause: What the history says of it.
            restores: The generation whose content it repeats.

        Returns:
            The generation that counts from now on.

        Raises:
            IntegrityError: the record of where names come from is damaged; nothing was changed.
        """
        from mbpm.registries import origins

        home, store = self.home, self.home.store
        new_packs, new_bases = list(new_packs), list(new_bases)
        old = home.current()
        # it is added to once the change counts, and must not fail then
        origins.read(home)
        new = Generation(
            number=old.number + 1,
            created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            command=self._command,
            cause=cause,
            restores=restores,
            packs=tuple(sorted(packs, key=lambda p: p.name)),
            bases=tuple(sorted(bases, key=lambda b: b.name)),
        )
        folders = [["pack", m.digest()] for m in new_packs]
        folders += [["base", c.digest()] for c in new_bases]
        journal = {"profile": home.profile, "to": new.number, "folders": folders}
        write_atomic(home.journal, json.dumps(journal).encode())
        for manifest in new_packs:
            store.make_pack(manifest, anew=manifest.digest() in anew)
        for card in new_bases:
            store.make_base(card, anew=card.digest() in anew)
        write_atomic(home.generation_path(new.number), new.canonical())
        write_atomic(home.pointer, f"{new.number}\n".encode())
        if self._finish(home, old, new):
            remove(home.journal)
        return new

    def recover(self) -> None:
        """Finish or roll back what a killed writer left, and clear its staging."""
        from mbpm.home import Home

        journal, done = self._journal(), True
        if journal is not None:
            home = Home(self.home.path, journal["profile"])
            self._rebuild(home, journal["folders"])
            # where it is damaged, `mbpm repair` mends it, and other profiles go on meanwhile
            with suppress(MbpmError):
                current = home.current()
                if current.number == journal["to"]:
                    done = self._finish(home, self._before(home, current), current)
                elif current.number < journal["to"]:
                    remove(home.generation_path(journal["to"]))
        if done:
            remove(self.home.journal)
        remove(self.home.staging)

    def _journal(self) -> dict[str, Any] | None:
        from mbpm.home import Home

        try:
            value = json.loads(self.home.journal.read_bytes())
            Home(self.home.path, value["profile"])
            if type(value["to"]) is not int:
                return None
            folders = [(str(kind), str(digest)) for kind, digest in value["folders"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError, UsageError):
            # it is written atomically, so this was somebody's editor; the pointer still decides
            return None
        return {**value, "folders": folders}

    def _rebuild(self, home: Home, folders: Iterable[tuple[str, str]]) -> None:
        """Make folders whose replacement was cut between taking the old one away and the new."""
        for kind, digest in folders:
            # what cannot be read is damaged; `verify` says so, and how to mend it
            with suppress(IntegrityError, OSError):
                if kind == "pack" and home.store.has_document(digest):
                    home.store.make_pack(home.store.manifest(digest))
                elif kind == "base" and home.store.has_document(digest):
                    home.store.make_base(home.store.card(digest))

    def _before(self, home: Home, generation: Generation) -> Generation:
        """The generation it came after; an empty one where that cannot be read any more."""
        with suppress(IntegrityError, NotFoundError):
            return home.generation(generation.number - 1)
        return home.generation(0)

    def _finish(self, home: Home, old: Generation, new: Generation) -> bool:
        """What comes after the commit point; fails for nothing, because the change counts.

        Returns:
            Whether all of it is done; else the journal stays for whoever writes next.
        """
        from mbpm.registries.origins import ORIGINS_FILE, record
        from mbpm.triggers import run_triggers

        was, done = {p.name: p.registry for p in old.packs}, True
        try:
            # where a pack comes from another registry than before, somebody said so
            record(home, [p for p in new.packs if p.registry != was.get(p.name)], told=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self._out.warn(f"{home.root / ORIGINS_FILE}: {reason}; the next change writes it")
            done = False
        except IntegrityError:
            # damaged since then, it is `mbpm repair`'s, and keeps nobody from going on
            pass
        run_triggers(home, new, self._out)
        return done


@contextmanager
def writer(home: Home, out: Output, command: str) -> Iterator[Writer]:
    """Take the writer lock, put right what an earlier writer left, and hand out the right to write.

    Raises:
        MbpmError: another process holds the lock for longer than the wait.
    """
    with writer_lock(home.path, out):
        right = Writer(home, out, command)
        right.recover()
        try:
            yield right
        finally:
            # a full disk must not stay full of what could not be finished
            remove(home.staging)
