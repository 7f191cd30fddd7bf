"""Changing what a project wants: mbpm.toml, its lock and its profile together, or none of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mbpm.project import changes, edit
from mbpm.project.files import put_back, write
from mbpm.project.locking import find_versions
from mbpm.project.syncing import sync
from specs.errors import IntegrityError
from specs.lockfile import LOCK_FILE
from specs.project import PROJECT_FILE

if TYPE_CHECKING:
    from mbpm.output import Output
    from mbpm.project.files import Checkout
    from mbpm.project.locking import Locked
    from mbpm.state import State
    from specs.lockfile import Lock
    from specs.project import WantedPack
    from specs.versions import Requirement


def want(
    state: State,
    checkout: Checkout,
    *,
    put: Mapping[str, WantedPack] | None = None,
    newest: Collection[str] = (),
    drop: Collection[str] = (),
    only_files: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    """Want more packs, other versions of them, or fewer.

    Args:
        state: The command, on the project's profile.
        checkout: The project.
        put: Packs to add or change.
        newest: Those of them of which the version that is found becomes what is required.
        drop: Packs to take out.
        only_files: Leave the profile as it is.
        yes: Do not ask.
        dry_run: Only show.

    Raises:
        MbpmError: as `find_versions` and `sync`; then neither file was changed.
    """
    old = checkout.lock()
    put = dict(put or {})
    packs = {n: w for n, w in {**checkout.project.packs, **put}.items() if n not in drop}
    project = checkout.project.model_copy(update={"packs": packs})
    found = find_versions(state, checkout.folder, project, old)
    for name in newest:
        version = found.pack(name).version.partition("+")[0]
        put[name] = put[name].model_copy(update={"version": f"^{version}"})
    raw, project = edit.changed(checkout.raw, put, drop)
    lock = found.lock(project)
    difference = tell(found, old, lock, state.out)
    more = {"project": str(checkout.folder), "lock": {"changes": changes.document(difference)}}
    if only_files:
        changes.show(difference, state.out)
        if not dry_run:
            with written(checkout, raw, lock, state):
                pass
        state.out.result({**more, "changed": not dry_run})
    elif dry_run:
        sync(state, checkout.folder, project, lock, frozen=False, yes=yes, dry_run=True, more=more)
    else:
        with written(checkout, raw, lock, state):
            sync(
                state,
                checkout.folder,
                project,
                lock,
                frozen=False,
                yes=yes,
                dry_run=False,
                more=more,
            )


def tell(found: Locked, old: Lock | None, new: Lock, out: Output) -> list[changes.Change]:
    """What is different in a new lock; warns of what looks wrong about it."""
    difference = changes.changes(old, new)
    for text in (*found.remarks, *changes.warnings(difference)):
        out.warn(text)
    return difference


@contextmanager
def written(checkout: Checkout, raw: bytes, lock: Lock, state: State) -> Iterator[None]:
    """Replace both files, and put them back where what follows fails before the profile changed.

    mbpm.toml goes first: killed in between, the lock is older than it, which every command sees.
    """
    rendered, both = lock.render(), False
    write(checkout.file, raw, before=checkout.raw)
    try:
        write(checkout.lock_file, rendered, before=checkout.raw_lock)
        both = True
        yield
    except BaseException:
        if both and _installed(state, lock):
            # what failed is telling of it
            raise
        put_back(checkout.file, checkout.raw)
        put_back(checkout.lock_file, checkout.raw_lock)
        if raw != checkout.raw:
            state.out.note(f"{PROJECT_FILE} and {LOCK_FILE} are as they were")
        raise


def _installed(state: State, lock: Lock) -> bool:
    """Whether the profile holds what a lock says."""
    try:
        packs = state.home.current().packs
    except IntegrityError:
        return False
    wanted = {(p.name, p.manifest, p.auto) for p in lock.packs}
    return {(p.name, p.manifest, p.auto) for p in packs} == wanted


def relock(
    state: State,
    checkout: Checkout,
    old: Lock | None,
    *,
    upgrade: Mapping[str, Requirement | None] | None = None,
) -> tuple[Lock, list[changes.Change]]:
    """The lock that the project should have, and what is different in it; writes nothing.

    Raises:
        MbpmError: as `find_versions`.
    """
    found = find_versions(state, checkout.folder, checkout.project, old, upgrade=upgrade or {})
    lock = found.lock(checkout.project)
    return lock, tell(found, old, lock, state.out)
