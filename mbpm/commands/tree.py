"""`mbpm tree`: what packs need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from mbpm.options import complete_installed
from mbpm.state import State

if TYPE_CHECKING:
    from mbpm.graph import Edge, Graph, Node


class _Row(NamedTuple):
    node: Node
    depth: int = 0
    edge: Edge | None = None
    """Why it stands below the row above."""


def command(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            help="A pack or base; everything installed if left out",
            autocompletion=complete_installed,
        ),
    ] = None,
    depth: Annotated[
        int | None, typer.Option("--depth", min=0, metavar="N", help="Go only N levels down")
    ] = None,
    invert: Annotated[
        bool,
        typer.Option("--invert", "-i", help="Show what needs a pack or base, not what it needs"),
    ] = False,
) -> None:
    """Show installed packs and what each needs: packs it requires or recommends, and its base.

    Behind a name stand its version, the versions asked for, and `auto` where it came only because
    others need it. What was shown before is marked `(*)`, and not shown again.

    $ mbpm tree legal --depth 1
    $ mbpm tree smollm2-135m --invert
    """
    from mbpm.drawing import draw
    from mbpm.graph import Graph

    state: State = ctx.obj
    out = state.out
    graph = Graph.of(state.home)
    roots = graph.named(name) if name is not None else _roots(graph, inverted=invert)
    out.result(graph.document(roots, inverted=invert, depth=depth))
    if not roots:
        out.note("no packs are installed")
        return
    shown: set[Node] = set()

    def visit(row: _Row) -> tuple[str, list[_Row]]:
        edges = graph.needed_by(row.node) if invert else graph.needs(row.node)
        words = _label(graph, row, inverted=invert)
        if row.node in shown and edges:
            return f"{words} (*)", []
        if row.depth == depth:
            return words, []
        shown.add(row.node)
        return words, [_Row(e.source if invert else e.target, row.depth + 1, e) for e in edges]

    for line in draw([_Row(r) for r in roots], visit):
        out.line(line)


def _roots(graph: Graph, *, inverted: bool) -> list[Node]:
    """Where to begin so that everything is shown."""
    nodes = list(graph.nodes())
    if inverted:
        return [n for n in nodes if n.kind == "base"]
    roots = [n for n in nodes if n.kind == "pack" and graph.wanted_itself(n)]
    shown = set(graph.reached(roots))
    for tops_only in (True, False):
        # what nothing needs, and then what needs itself in a circle
        for node in nodes:
            if node not in shown and not (tops_only and graph.needed_by(node)):
                roots.append(node)
                shown.update(graph.reached([node]))
    return roots


def _label(graph: Graph, row: _Row, *, inverted: bool) -> str:
    edge, node, remarks = row.edge, row.node, []
    if edge is not None and edge.relation != "base":
        if inverted:
            remarks.append(f"{edge.relation} {edge.wanted} {edge.requirement}")
        else:
            stands = edge.wanted != node.name
            remarks.append(f"stands for {edge.wanted}" if stands else edge.requirement)
            if edge.relation == "recommends":
                remarks.append("recommended")
    if node.kind == "machine":
        remarks.append("this machine")
    elif node.kind == "missing":
        remarks.append("not installed")
    elif node.kind == "pack" and not graph.wanted_itself(node):
        remarks.append("auto")
    return graph.title(node) + (f" ({', '.join(remarks)})" if remarks else "")
