"""Working out what removing would do, and what nothing needs any more; changes nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mbpm.change.install import known_manifests
from mbpm.change.steps import Changes, Prepared
from specs.errors import NotFoundError, ResolutionError
from specs.generation import Generation, InstalledPack

if TYPE_CHECKING:
    from mbpm.home import Home
    from mbpm.state import State
    from specs.manifest import Manifest


def prepare_removal(
    home: Home,
    packs: Sequence[str],
    bases: Sequence[str] = (),
    *,
    autoremove: bool = False,
    purge: bool = False,
) -> Prepared:
    """What removing these takes.

    Args:
        home: Where they are installed.
        packs: Names of packs.
        bases: Names of bases.
        autoremove: Also take out what nothing needs afterwards.
        purge: Free their bytes at once. Then a pack that is not installed any more is fine too, as
            long as some generation still keeps it.

    Raises:
        NotFoundError: one of them is not installed.
        ResolutionError: something that stays needs one of them.
    """
    before = home.current()
    changes = Changes.on(before, home.store)
    kept = {r.manifest for n in packs for r in _earlier(home, n)} if purge else set()
    for name in packs:
        if before.pack(name) is not None:
            continue
        if not purge or not any(True for _ in _earlier(home, name)):
            raise _unknown(name, "pack", [p.name for p in before.packs], "`mbpm list`")
    for name in bases:
        if before.base(name) is None:
            raise _unknown(name, "base", [b.name for b in before.bases], "`mbpm base list`")
    manifests = known_manifests(before, home.store)
    _check_needed(before, packs, bases, manifests)
    for name in dict.fromkeys(packs):
        if name in changes.packs:
            changes.remove_pack(name)
    for name in dict.fromkeys(bases):
        changes.remove_base(name)
    if autoremove:
        for name in unneeded_packs(changes.packs.values(), manifests):
            changes.remove_pack(name, "nothing needs it any more")
        used = {p.base for p in changes.packs.values()}
        for base in before.bases:
            if base.auto and base.name in changes.bases and base.name not in used:
                changes.remove_base(base.name)
    prepared = changes.prepared()
    return replace(prepared, purged=frozenset(kept)) if purge else prepared


def unneeded_packs(packs: Iterable[InstalledPack], manifests: Mapping[str, Manifest]) -> list[str]:
    """Packs that came along for others, and that no wanted pack requires or recommends, directly or
    through others; sorted by name."""
    by_name = {p.name: p for p in packs}
    needed = {n for n, p in by_name.items() if not p.auto or n not in manifests}
    queue = list(needed)
    while queue:
        manifest = manifests.get(queue.pop())
        if manifest is None:
            continue
        for name in (*manifest.requires, *manifest.recommends):
            for other in _providers(name, by_name, manifests):
                if other not in needed:
                    needed.add(other)
                    queue.append(other)
    return sorted(by_name.keys() - needed)


def _providers(
    name: str, packs: Mapping[str, InstalledPack], manifests: Mapping[str, Manifest]
) -> list[str]:
    """The installed packs that stand for a name."""
    return [
        n
        for n in packs
        if n == name or ((m := manifests.get(n)) and (name in m.provides or name in m.replaces))
    ]


def _earlier(home: Home, name: str) -> Iterable[InstalledPack]:
    for generation in home.generations():
        if (record := generation.pack(name)) is not None:
            yield record


def _unknown(name: str, what: str, installed: list[str], command: str) -> NotFoundError:
    close = difflib.get_close_matches(name, installed, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"{command} shows what is installed"
    return NotFoundError(f"{what} `{name}` is not installed", hint=hint)


def _check_needed(
    before: Generation,
    packs: Sequence[str],
    bases: Sequence[str],
    manifests: Mapping[str, Manifest],
) -> None:
    kept = {p.name: p for p in before.packs if p.name not in packs}
    for pack in kept.values():
        if pack.base in bases:
            raise ResolutionError(
                f"{pack.name} {pack.version} needs base {pack.base}",
                hint=f"`mbpm remove {pack.name}` first",
            )
        requires = manifests[pack.name].requires if pack.name in manifests else {}
        for name in packs:
            if name in requires and not _providers(name, kept, manifests):
                raise ResolutionError(
                    f"{pack.name} {pack.version} requires {name}",
                    hint=f"`mbpm remove {name} {pack.name}` removes both",
                )


def suggest_autoremove(state: State) -> None:
    """Say what nothing needs any more, if anything."""
    current = state.home.current()
    names = unneeded_packs(current.packs, known_manifests(current, state.home.store))
    if names and state.out.mode == "human":
        state.out.note(f"nothing needs {', '.join(names)} any more")
        state.out.hint("`mbpm autoremove` removes what nothing needs")
