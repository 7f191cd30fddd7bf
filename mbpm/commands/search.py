"""`mbpm search`: packs that could be installed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import Registries
from mbpm.state import State
from specs.errors import MbpmError

if TYPE_CHECKING:
    from mbpm.catalogue import Catalogue
    from mbpm.registries.query import Query
    from specs.index_line import EvalSummary
    from specs.summary import PackSummary

LIMIT = 50


def command(
    ctx: typer.Context,
    terms: Annotated[
        list[str] | None,
        typer.Argument(metavar="TERM", help="Beginnings of words of name, domain or description"),
    ] = None,
    registry: Registries = None,
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only packs for this base")
    ] = None,
    domain: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only packs of this domain")
    ] = None,
    installed: Annotated[
        bool, typer.Option("--installed", help="Only packs that are installed")
    ] = False,
    limit: Annotated[
        int, typer.Option(metavar="N", min=0, help="Show so many at most; 0 shows all")
    ] = LIMIT,
) -> None:
    """Search the registries; without words, list what they have.

    All the words must match, each with the beginning of a word of the pack's name, domain or
    description, or of a name it provides. What is known of remote registries is searched here,
    without asking them, so it works offline too.

    $ mbpm search tenancy law
    $ mbpm search --base smollm2-135m
    """
    from mbpm.registries.query import Query

    state: State = ctx.obj
    catalogue = state.catalogue(registry)
    query = Query(tuple(terms or ()), base, domain)
    versions = {p.name: p.version for p in state.home.current().packs}
    most = limit or None
    if installed:
        matching = [f for f in catalogue.summaries(sorted(versions)) if query.matches(f[0])]
        found, total = matching[:most], len(matching)
    else:
        found, total = catalogue.search(query, most)
    packs = [
        {
            **pack.model_dump(mode="json", exclude={"format", "index", "yanked"}),
            "registry": label,
            "installed": versions.get(pack.name),
        }
        for pack, label in found
    ]
    state.out.result({"packs": packs, "total": total})
    if not found:
        _nothing(state, catalogue, query, installed)
        return
    called = {label: catalogue.called(label) for label in {label for _, label in found}}
    _print(state, [(pack, called[label]) for pack, label in found], versions)
    if total > len(found):
        state.out.note(f"and {total - len(found):,} more; `--limit 0` shows all")


def _nothing(state: State, catalogue: Catalogue, query: Query, installed: bool) -> None:
    asked = query.terms or query.base or query.domain or installed
    state.out.note("no pack matches" if asked else f"no packs in {catalogue.describe()}")
    if len(query.terms) == 1 and state.out.mode == "human":
        from mbpm.registries.alike import close

        # a hint is not worth failing for
        with suppress(MbpmError):
            if found := close(query.terms[0].lower(), catalogue.sources()):
                state.out.hint(f"did you mean `mbpm search {found}`?")


def _print(state: State, found: list[tuple[PackSummary, str]], versions: dict[str, str]) -> None:
    several = len({label for _, label in found}) > 1
    columns = ["NAME", "VERSION", "INSTALLED", "BASE", "GAIN", "DESCRIPTION"]
    rows = []
    for pack, label in found:
        about = f"(deprecated) {pack.description}" if pack.deprecated else pack.description
        installed = versions.get(pack.name, "no")
        row = [pack.name, pack.version, installed, pack.base.name, gain(pack.evals), about]
        rows.append([*row[:5], label, about] if several else row)
    state.out.table([*columns[:5], "FROM", columns[5]] if several else columns, rows)


def gain(evals: EvalSummary | None) -> str:
    """The main metric of a pack beside the base's: `accuracy 0.31 -> 0.42`."""
    if evals is None:
        return "unknown"
    return f"{evals.metric} {evals.base:.4g} -> {evals.pack:.4g}"
