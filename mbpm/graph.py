"""What installed packs need, and what needs them: the graph behind `why` and `tree`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from specs.names import HARDWARE
from specs.versions import Requirement, Version

if TYPE_CHECKING:
    from mbpm.home import Home
    from specs.generation import Generation, InstalledBase, InstalledPack
    from specs.manifest import Manifest

Kind = Literal["pack", "base", "machine", "missing"]
Relation = Literal["requires", "recommends", "base"]


@dataclass(frozen=True, order=True)
class Node:
    """A pack or base that is installed, a property of the machine, or what is not there."""

    kind: Kind
    name: str


@dataclass(frozen=True)
class Edge:
    """One node needs another."""

    source: Node
    relation: Relation
    wanted: str
    """The name that is asked for, which the target may only stand for."""
    requirement: str
    """The versions asked for; empty for a base."""
    target: Node


class Graph:
    """Everything installed in one generation."""

    def __init__(self, generation: Generation, manifests: Mapping[str, Manifest]) -> None:
        """
        Args:
            generation: What is installed.
            manifests: Name -> manifest; a pack without one is taken to need its base only.
        """
        self.packs: Mapping[str, InstalledPack] = {p.name: p for p in generation.packs}
        self.bases: Mapping[str, InstalledBase] = {b.name: b for b in generation.bases}
        self._manifests = manifests
        self._stand_ins: dict[str, list[str]] = {}
        for name, manifest in sorted(manifests.items()):
            for other in {*manifest.provides, *manifest.replaces} - {name}:
                self._stand_ins.setdefault(other, []).append(name)
        self._needs = {Node("pack", n): tuple(self._edges(p)) for n, p in self.packs.items()}
        self._needed_by: dict[Node, list[Edge]] = {}
        for edges in self._needs.values():
            for edge in edges:
                self._needed_by.setdefault(edge.target, []).append(edge)

    @classmethod
    def of(cls, home: Home) -> Graph:
        """The graph of what a home's profile has installed."""
        from mbpm.change.install import known_manifests

        generation = home.current()
        return cls(generation, known_manifests(generation, home.store))

    def needs(self, node: Node) -> tuple[Edge, ...]:
        """What a node needs: what it requires, what it recommends, its base."""
        return self._needs.get(node, ())

    def needed_by(self, node: Node) -> tuple[Edge, ...]:
        """What needs a node, by name."""
        return tuple(sorted(self._needed_by.get(node, ()), key=lambda e: (e.source, e.wanted)))

    def meant_by(self, name: str) -> list[Node]:
        """What a name stands for: the pack, packs that provide or replace it, and the base."""
        found = [Node("pack", n) for n in self._standing(name, Requirement("*"))]
        return found + [Node("base", name)] * (name in self.bases)

    def named(self, name: str) -> list[Node]:
        """As `meant_by`, for a name that a person typed.

        Raises:
            NotFoundError: nothing that is installed; the hint names what sounds alike.
        """
        found = self.meant_by(name)
        if not found:
            import difflib

            from specs.errors import NotFoundError

            names = sorted({*self.packs, *self.bases, *self._stand_ins})
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean `{close[0]}`?" if close else "`mbpm list` shows what is installed"
            raise NotFoundError(f"pack `{name}` is not installed", hint=hint)
        return found

    def wanted_itself(self, node: Node) -> bool:
        """Whether somebody asked for it, so that it needs no other reason to be there."""
        if node.kind == "base":
            return not self.bases[node.name].auto
        return node.kind == "pack" and not self.packs[node.name].auto

    def nodes(self) -> Iterator[Node]:
        """Every pack and base, by name."""
        yield from (Node("pack", n) for n in sorted(self.packs))
        yield from (Node("base", n) for n in sorted(self.bases))

    def has_reason(self, node: Node) -> bool:
        """Whether it was asked for, or something needs it, however indirectly, that was."""
        return any(map(self.wanted_itself, self.reached([node], inverted=True)))

    def title(self, node: Node) -> str:
        """What to call a node: `legal 1.2.0`, `base tiny`."""
        if node.kind == "pack":
            return f"{node.name} {self.packs[node.name].version}"
        return f"base {node.name}" if node.kind == "base" else node.name

    def document(
        self, roots: Iterable[Node], *, inverted: bool, depth: int | None = None
    ) -> dict[str, Any]:
        """Roots and everything they lead to, as JSON.

        Args:
            roots: Where to begin.
            inverted: Whether to go from what is needed to what needs it.
            depth: How many steps to go; all if None.
        """
        roots = list(roots)
        nodes = []
        for node in self.reached(roots, inverted=inverted, depth=depth):
            edges = self.needed_by(node) if inverted else self.needs(node)
            ends = [
                {
                    **asdict(e.source if inverted else e.target),
                    "relation": e.relation,
                    "wanted": e.wanted,
                    "requirement": e.requirement,
                }
                for e in edges
            ]
            nodes.append({**self._describe(node), "needed_by" if inverted else "needs": ends})
        return {"roots": [asdict(r) for r in roots], "nodes": nodes}

    def reached(
        self, roots: Iterable[Node], *, inverted: bool = False, depth: int | None = None
    ) -> list[Node]:
        """The roots and everything they lead to, the nearest first; arguments as `document`."""
        found = dict.fromkeys(roots)
        front = list(found)
        while front and depth != 0:
            depth = None if depth is None else depth - 1
            ends = [
                e.source if inverted else e.target
                for node in front
                for e in (self.needed_by(node) if inverted else self.needs(node))
            ]
            front = [n for n in dict.fromkeys(ends) if n not in found]
            found |= dict.fromkeys(front)
        return list(found)

    def _describe(self, node: Node) -> dict[str, Any]:
        if node.kind == "pack":
            pack = self.packs[node.name]
            return {**asdict(node), "version": pack.version, "auto": pack.auto}
        if node.kind == "base":
            base = self.bases[node.name]
            return {**asdict(node), "fingerprint": base.fingerprint, "auto": base.auto}
        return asdict(node)

    def _edges(self, pack: InstalledPack) -> Iterator[Edge]:
        source, manifest = Node("pack", pack.name), self._manifests.get(pack.name)
        if manifest is not None:
            for name, text in sorted(manifest.requires.items()):
                for target in self._targets(name, text):
                    yield Edge(source, "requires", name, text, target)
            for name, text in sorted(manifest.recommends.items()):
                for target in self._targets(name, text):
                    yield Edge(source, "recommends", name, text, target)
        there: Kind = "base" if pack.base in self.bases else "missing"
        yield Edge(source, "base", pack.base, "", Node(there, pack.base))

    def _targets(self, name: str, text: str) -> list[Node]:
        if name in HARDWARE:
            return [Node("machine", name)]
        standing = [Node("pack", n) for n in self._standing(name, Requirement(text))]
        return standing or [Node("missing", name)]

    def _standing(self, name: str, wanted: Requirement) -> Iterable[str]:
        """Packs that are what is asked for; what only stands in for a name has no version."""
        if name in self.packs and wanted.admits(
            Version(self.packs[name].version), prereleases=True
        ):
            yield name
        if wanted.text.strip() == "*":
            yield from self._stand_ins.get(name, ())
