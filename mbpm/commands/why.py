"""`mbpm why`: what needs a pack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from mbpm.options import complete_installed
from mbpm.state import State

if TYPE_CHECKING:
    from mbpm.graph import Edge, Graph, Node


class _Row(NamedTuple):
    node: Node
    edge: Edge | None = None
    """Why it stands below the row above."""


def command(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="An installed pack or base, or a name it provides",
            autocompletion=complete_installed,
        ),
    ],
) -> None:
    """Show why a pack or base is installed: what needs it, and what needs that, up to the packs
    that were asked for.

    A pack marked `(wanted itself)` needs no other reason; `mbpm mark auto NAME` takes that mark
    away. What was shown before is marked `(*)`.

    $ mbpm why words
    """
    from mbpm.drawing import draw
    from mbpm.graph import Graph

    state: State = ctx.obj
    out = state.out
    graph = Graph.of(state.home)
    roots = graph.named(name)
    out.result({"name": name, **graph.document(roots, inverted=True)})
    shown: set[Node] = set()

    def visit(row: _Row) -> tuple[str, list[_Row]]:
        edges = graph.needed_by(row.node)
        words = _label(graph, row, name)
        if row.node in shown and edges:
            return f"{words} (*)", []
        shown.add(row.node)
        return words, [_Row(e.source, e) for e in edges]

    for line in draw([_Row(r) for r in roots], visit):
        out.line(line)
    for root in roots:
        if not graph.has_reason(root) and out.mode == "human":
            out.note(f"nothing that was asked for needs {graph.title(root)}")
            out.hint("`mbpm autoremove` removes what nothing needs")


def _label(graph: Graph, row: _Row, asked: str) -> str:
    words = graph.title(row.node)
    edge = row.edge
    if edge is None and row.node.name != asked:
        words += f" (stands for {asked})"
    elif edge is not None and edge.relation == "base":
        words += " was made for it"
    elif edge is not None:
        words += f" {edge.relation} `{edge.wanted} {edge.requirement}`"
    if graph.wanted_itself(row.node):
        words += " (wanted itself)"
    return words
