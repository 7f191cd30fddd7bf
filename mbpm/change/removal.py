"""Working out what removing would do, and what nothing needs any more; changes nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mbpm.change.install import known_manifests
from mbpm.change.steps import Changes, Prepared
from specs.errors import NotFoundError, ResolutionError
from specs.generation import Generation, InstalledPack

if TYPE_CHECKING:
    from mbpm.graph import Node
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
        IntegrityError: what a profile holds cannot be read, so that nobody knows what it needs.
    """
    changes = Changes.on(home)
    before = changes.before
    known = {r.manifest: r for n in packs for r in _earlier(home, n)} if purge else {}
    for name in packs:
        if before.pack(name) is None and name not in {r.name for r in known.values()}:
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
        for node in unneeded(changes.after(), manifests):
            if node.kind == "pack":
                changes.remove_pack(node.name, "nothing needs it any more")
            else:
                changes.remove_base(node.name)
    if not purge:
        return changes.prepared()
    changes.purged.update(known)
    installed = {p.manifest for p in before.packs}
    for record in known.values():
        if record.manifest not in installed and changes.frees(record):
            changes.purge_pack(record)
    gone = [f"nothing of {n} is left" for n in packs if n not in {p.name for p in changes.planned}]
    return changes.prepared(satisfied=gone)


def unneeded(generation: Generation, manifests: Mapping[str, Manifest]) -> list[Node]:
    """Packs and bases that came along for others, and that nothing wanted requires, recommends or
    was made for, directly or through others."""
    from mbpm.graph import Graph

    graph = Graph(generation, manifests)
    # a pack nothing is known of may well need others, and was not found to be unneeded itself
    roots = [n for n in graph.nodes() if graph.wanted_itself(n) or _unknown_pack(n, manifests)]
    needed = set(graph.reached(roots))
    return [n for n in graph.nodes() if n not in needed]


def _unknown_pack(node: Node, manifests: Mapping[str, Manifest]) -> bool:
    return node.kind == "pack" and node.name not in manifests


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
    from mbpm.graph import Graph, Node

    kept = tuple(p for p in before.packs if p.name not in packs)
    for pack in kept:
        if pack.base in bases:
            raise ResolutionError(
                f"{pack.name} {pack.version} needs base {pack.base}",
                hint=f"`mbpm remove {pack.name}` first",
            )
    rest = before.model_copy(update={"packs": kept})
    now = Graph(before, manifests)
    then = Graph(rest, {p.name: manifests[p.name] for p in kept if p.name in manifests})
    for pack in kept:
        node = Node("pack", pack.name)
        left = {e.wanted for e in then.needs(node) if e.target.kind != "missing"}
        for edge in now.needs(node):
            gone = edge.target.kind == "pack" and edge.target.name in packs
            if edge.relation == "requires" and gone and edge.wanted not in left:
                name = edge.target.name
                what = name if name == edge.wanted else f"{edge.wanted}, which {name} provides"
                raise ResolutionError(
                    f"{pack.name} {pack.version} requires {what}",
                    hint=f"`mbpm remove {name} {pack.name}` removes both",
                )


def suggest_autoremove(state: State) -> None:
    """Say what nothing needs any more, if anything."""
    current = state.home.current()
    found = unneeded(current, known_manifests(current, state.home.store))
    if found and state.out.mode == "human":
        names = ", ".join(n.name if n.kind == "pack" else f"base {n.name}" for n in found)
        state.out.note(f"nothing needs {names} any more")
        state.out.hint("`mbpm autoremove` removes what nothing needs")
