"""Making a profile hold exactly what a lock says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.home import DEFAULT_PROFILE
from mbpm.project.places import Places
from specs.errors import IntegrityError, ResolutionError
from specs.generation import InstalledBase, InstalledPack
from specs.lockfile import LOCK_FILE, Lock, LockedPack
from specs.names import HARDWARE
from specs.project import PROJECT_FILE
from specs.versions import Requirement, Version

if TYPE_CHECKING:
    from mbpm.change.steps import Prepared
    from mbpm.home import Home
    from mbpm.state import State
    from specs.manifest import Manifest
    from specs.project import Project

OWNER_FILE = "project"
"""In a profile: the folder of the project it was last synced for."""


def for_profile(state: State, project: Project) -> State:
    """The command on the project's profile, unless another was named."""
    return state if state.profile is not None else replace(state, profile=project.profile)


def sync(
    state: State,
    folder: Path,
    project: Project,
    lock: Lock,
    *,
    frozen: bool,
    yes: bool,
    dry_run: bool,
    registries: Sequence[str] = (),
    more: Mapping[str, object] | None = None,
) -> None:
    """Bring a lock's packs and bases into the profile, and remove the others.

    Args:
        state: The command, on the profile.
        folder: Of the project.
        project: Its mbpm.toml.
        lock: What to have.
        frozen: Look at no index.
        yes: Do not ask.
        dry_run: Only show.
        registries: More registries that may have what the lock names.
        more: Other keys of the JSON document.

    Raises:
        ResolutionError: this machine does not have what a pack needs.
        IntegrityError: the lock contradicts a manifest, or the bytes are not what it says.
        MbpmError: as `mbpm.change.carry_out`.
    """
    from mbpm.change import carry_out
    from mbpm.change.restore import prepare_exact
    from mbpm.project.supply import LockSupply

    places = Places(folder, project)
    home = state.home
    _check_machine(lock)
    labels = places.labels([*(p.registry for p in lock.packs), *(b.registry for b in lock.bases)])
    catalogue = state.catalogue([*labels, *registries])
    supply = LockSupply(lock, places, catalogue, home.store, frozen=frozen)

    def prepare() -> Prepared:
        prepared = prepare_exact(
            home, list(_records(home, lock, places)), supply, bases=_bases(lock, places, project)
        )
        _check_cards(home, lock)
        _check_manifests(home, lock, prepared)
        return prepared

    other = _other_project(home, folder)
    if other is not None:
        state.out.warn(
            f"the profile {home.profile} is that of {other} too; "
            f"`profile` in {PROJECT_FILE} gives this project one of its own"
        )
    for text in _held(home, lock):
        state.out.warn(text)
    before = home.current().number
    after = carry_out(
        state,
        prepare,
        yes=yes,
        dry_run=dry_run,
        idle=f"profile {home.profile} holds what {LOCK_FILE} says",
        more={"project": str(folder), "profile": home.profile, **(more or {})},
    )
    if not dry_run:
        _remember(home, folder)
    if after.packs and after.number != before and state.out.mode == "human":
        state.out.hint(f"`mbpm --profile {home.profile} chat` uses it")


def _held(home: Home, lock: Lock) -> Iterator[str]:
    """Packs that stay at another version by hand, in words: the lock decides about a profile."""
    for old in home.current().packs:
        new = lock.pack(old.name)
        if new is None or new.version == old.version:
            continue
        if old.held or (old.pin and not Requirement(old.pin).admits(Version(new.version))):
            how = "held" if old.held else f"pinned to `{old.pin}`"
            undo = "unhold" if old.held else "unpin"
            yield (
                f"{old.name} is {how} at {old.version} in the profile {home.profile}, and "
                f"{LOCK_FILE} says {new.version}: the lock decides; `mbpm --profile "
                f"{home.profile} {undo} {old.name}` ends this, and `mbpm add {old.name}"
                f"@={old.version}` keeps the version"
            )


def _other_project(home: Home, folder: Path) -> Path | None:
    """Another project that the profile was synced for, and that is still there."""
    other = _remembered(home)
    if other is None or other == folder or not (other / PROJECT_FILE).is_file():
        return None
    return other


def _remembered(home: Home) -> Path | None:
    try:
        return Path((home.root / OWNER_FILE).read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return None


def _remember(home: Home, folder: Path) -> None:
    from mbpm.files import write_atomic

    if home.profile == DEFAULT_PROFILE or _remembered(home) == folder or not home.root.is_dir():
        return
    # it only serves a warning: a home that cannot be written to is no reason to fail
    with suppress(OSError):
        write_atomic(home.root / OWNER_FILE, f"{folder}\n".encode())


def _records(home: Home, lock: Lock, places: Places) -> Iterator[InstalledPack]:
    current = home.current()
    for pack in lock.packs:
        old = current.pack(pack.name)
        yield InstalledPack(
            name=pack.name,
            version=pack.version,
            manifest=pack.manifest,
            base=pack.base,
            registry=places.label(pack.registry),
            auto=pack.auto,
            held=old is not None and old.held,
            pin=old.pin if old is not None else None,
            publisher=pack.publisher or None,
        )


def _bases(lock: Lock, places: Places, project: Project) -> list[InstalledBase]:
    return [
        InstalledBase(
            name=base.name,
            fingerprint=base.fingerprint,
            card=base.card,
            registry=places.label(base.registry),
            auto=base.name != project.project.base,
        )
        for base in lock.bases
    ]


def _check_machine(lock: Lock) -> None:
    from mbpm.hardware import OVERRIDE, detect
    from specs.versions import Requirement

    hardware = detect()
    for pack in lock.packs:
        for name, text in pack.requires.items():
            if name not in HARDWARE:
                continue
            there = hardware.get(name)
            if there is None or not Requirement(text).admits(there):
                has = "has none" if there is None else f"has {there}"
                variable = f"{OVERRIDE}{name.removeprefix('__').upper()}"
                raise ResolutionError(
                    f"{LOCK_FILE}: {pack.name} {pack.version} needs `{name} {text}`, and this "
                    f"machine {has}",
                    hint=f"set `{variable}` to install it anyway",
                )


def _check_cards(home: Home, lock: Lock) -> None:
    """What the lock says of its bases is what their cards say, as far as these are here; the
    others are checked when they are found."""
    from mbpm.project.supply import check_base

    for base in lock.bases:
        if home.store.has_document(base.card):
            check_base(base, home.store.card(base.card))


def _check_manifests(home: Home, lock: Lock, prepared: Prepared) -> None:
    """What the lock says of its packs is what their manifests say."""
    fresh = {s.record.name: s.manifest for s in prepared.pack_steps}
    for pack in lock.packs:
        manifest = fresh.get(pack.name) or _stored(home, pack)
        if manifest is None:
            continue
        base = lock.base(pack.base)
        wrong = pack.disagreement(manifest)
        if wrong is None and base is not None and base.fingerprint != manifest.base.fingerprint:
            wrong = f"its manifest names another base, {manifest.base.name}"
        if wrong is not None:
            raise IntegrityError(
                f"{LOCK_FILE}: what it says of {pack.name} {pack.version} is not so: {wrong}",
                hint=f"`mbpm lock` writes {LOCK_FILE} again",
            )


def _stored(home: Home, pack: LockedPack) -> Manifest | None:
    with suppress(IntegrityError):
        return home.store.manifest(pack.manifest)
    return None
