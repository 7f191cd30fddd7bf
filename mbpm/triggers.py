"""What is made from everything installed, once per change: named, deferred, and never a script.

A trigger's output is a file in HOME/derived, named by a digest over what it is made of. So one that
exists is never made again, going back to an earlier set finds the earlier file, profiles share, and
a trigger that was killed is simply run by whoever writes next. What a trigger makes only saves
time: where it is missing or damaged, packs are read one by one.

    router-<key>.safetensors     per base: the routing of its packs (runtime/routing_table.py)
    knowledge-<key>.sqlite       the passages of all packs (runtime/knowledge.py)
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.output import size
from specs.errors import IntegrityError, MbpmError
from specs.file_names import BASE_ROUTING_FILE, KNOWLEDGE_FILE, ROUTING_FILE
from specs.json_text import canonical_json

if TYPE_CHECKING:
    from mbpm.home import Home
    from mbpm.output import Output
    from runtime.routing_table import Rivals
    from specs.generation import Generation, InstalledBase, InstalledPack

MOST_NOTES = 3
"""Remarks on packs that answer alike, per change."""
TELL_BYTES = 16 * 1024 * 1024
"""Passages from which on making their index is announced."""


@dataclass(frozen=True)
class Trigger:
    """One file that a generation calls for."""

    name: str
    """`router` or `knowledge`."""
    file: Path
    missing: Callable[[], bool]
    make: Callable[[Output], None]
    without: str
    """What happens as long as it is not there."""


def run_triggers(home: Home, generation: Generation, out: Output) -> None:
    """Make what a generation calls for and is not there yet, and say which new packs compete.

    To be called under the writer's lock. What goes wrong is a warning: the change stands.
    """
    for trigger in _triggers(home, generation):
        try:
            if trigger.missing():
                trigger.make(out)
        # whatever it is, the change has happened, and the next writer must not fail for it too
        except Exception as error:
            out.warn(f"trigger `{trigger.name}`: {_reason(error)}; {trigger.without}")
    _tell_rivals(home, generation, out)


def current_files(home: Home) -> set[Path]:
    """The derived files that the current generations of all profiles use."""
    profiles = map(home.with_profile, home.profiles())
    return {t.file for profile in profiles for t in _triggers(home, profile.current())}


def router_table(home: Home, generation: Generation, base: InstalledBase) -> Path:
    """Where the routing table of a base's packs is, if it was made."""
    return router_file(home, base.fingerprint, [p.manifest for p in _packs_of(generation, base)])


def router_file(home: Home, fingerprint: str, manifests: Iterable[str]) -> Path:
    """The same of a base's fingerprint and its packs' manifests."""
    return home.derived / f"router-{_key(fingerprint, *sorted(manifests))}.safetensors"


def knowledge_index(home: Home, generation: Generation) -> Path | None:
    """Where the index of all packs' passages is, if it was made; None where no pack has any."""
    packs = sorted(p.manifest for p in _knowing(home, generation))
    return home.derived / f"knowledge-{_key(*packs)}.sqlite" if packs else None


def rivals(home: Home, generation: Generation, base: InstalledBase) -> Sequence[Rivals]:
    """The packs of a base that answer alike, most alike first; none where no table was made."""
    from runtime.routing_table import read_table

    try:
        return read_table(router_table(home, generation, base)).rivals
    except (IntegrityError, OSError):
        return ()


def _triggers(home: Home, generation: Generation) -> Iterator[Trigger]:
    for base in generation.bases:
        packs = _packs_of(generation, base)
        if packs and (home.store.base_path(base.card) / BASE_ROUTING_FILE).is_file():
            table = router_table(home, generation, base)
            yield Trigger(
                "router",
                table,
                partial(_no_table, table),
                partial(_make_table, home, base, packs, table),
                "until the next change the router reads the packs one by one",
            )
    if (index := knowledge_index(home, generation)) is not None:
        yield Trigger(
            "knowledge",
            index,
            lambda: not index.is_file(),
            partial(_make_index, home, _knowing(home, generation), index),
            "until the next change the passages of packs are not searched",
        )


def _packs_of(generation: Generation, base: InstalledBase) -> list[InstalledPack]:
    return [p for p in generation.packs if p.base == base.name]


def _knowing(home: Home, generation: Generation) -> list[InstalledPack]:
    """The packs that carry passages."""
    paths = ((p, home.store.pack_path(p.manifest) / KNOWLEDGE_FILE) for p in generation.packs)
    return [pack for pack, file in paths if file.is_file()]


def _key(*parts: str) -> str:
    """A name for what is made of these; another number where the files come to differ."""
    return hashlib.sha256(canonical_json([1, *parts])).hexdigest()[:32]


def _no_table(file: Path) -> bool:
    from runtime.routing_table import read_table

    try:
        read_table(file)
    except (IntegrityError, FileNotFoundError):
        return True
    return False


def _make_table(
    home: Home, base: InstalledBase, packs: Sequence[InstalledPack], file: Path, out: Output
) -> None:
    from mbpm.files import write_atomic
    from runtime.router import BaseRouting, PackRouting
    from runtime.routing_table import Row, build_table

    whitening = BaseRouting.load(home.base_dir(base) / BASE_ROUTING_FILE, base.fingerprint)
    rows = []
    for pack in packs:
        source = _sound(home, pack, ROUTING_FILE)
        rows.append(Row(pack.name, pack.manifest, PackRouting.load(source, whitening)))
    write_atomic(file, build_table(whitening, rows))


def _make_index(home: Home, packs: Sequence[InstalledPack], file: Path, out: Output) -> None:
    from mbpm.files import check_space, replace
    from runtime.knowledge import build_index
    from specs.knowledge import read_passages

    sources = [(pack, _sound(home, pack, KNOWLEDGE_FILE)) for pack in packs]
    total = sum(source.stat().st_size for _, source in sources)
    # about as much again for the words as for the text
    check_space(home.derived, 2 * total, "the index of the packs' passages")
    if total > TELL_BYTES:
        out.note(f"indexing the passages of {len(packs)} packs ({size(total)})")
    home.staging.mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    made = home.staging / f"{uuid.uuid4().hex}.sqlite"
    try:
        build_index(made, ((pack.name, read_passages(source)) for pack, source in sources))
        with made.open("rb+") as stream:
            os.fsync(stream.fileno())
        replace(made, file)
    finally:
        made.unlink(missing_ok=True)


def _sound(home: Home, pack: InstalledPack, name: str) -> Path:
    """A file of an installed pack, after a look at its bytes: what is derived outlives it.

    Raises:
        IntegrityError: it is damaged; the message says what mends it.
    """
    from registry_index.contents import check_blob

    file = home.pack_dir(pack) / name
    try:
        check_blob(home.store.manifest(pack.manifest).blob(name), file)
    except (IntegrityError, OSError) as error:
        raise IntegrityError(
            f"{pack.name} {pack.version}: {_reason(error)} (`mbpm reinstall {pack.name}` mends it)"
        ) from None
    return file


def _tell_rivals(home: Home, generation: Generation, out: Output) -> None:
    """One remark for each new pack that another one of its base answers like."""
    try:
        before = {p.manifest for p in home.generation(generation.number - 1).packs}
    except (MbpmError, OSError):
        before = set()
    new = {p.name for p in generation.packs if p.manifest not in before}
    if not new:
        return
    told: set[str] = set()
    for base in generation.bases:
        for pair in rivals(home, generation, base) if _packs_of(generation, base) else ():
            subject = {pair.one, pair.other} & new - told
            if subject and len(told) < MOST_NOTES:
                told |= subject
                out.note(
                    f"{pair.one} and {pair.other} answer alike (similarity "
                    f"{pair.similarity:.2f}): the router may pick either; `--pack NAME` decides"
                )


def _reason(error: Exception) -> str:
    if isinstance(error, MbpmError):
        return error.message
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return where + (error.strerror or str(error)).lower()
    return f"{type(error).__name__}: {error}"
