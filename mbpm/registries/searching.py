"""Searching what is cached of a remote registry, with SQLite's FTS5 where it has that."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from mbpm.registries.query import Found, Query, best, words
from specs.summary import PackSummary

if TYPE_CHECKING:
    from mbpm.registries.cache import Cache

RANKED = 5000
"""So many matches are put in order of how well they match; of more, those whose name, domain or
provided names match come first, and beyond that one more word is the better help."""

_NAMED = "{name domain provides}"
_ANYWHERE = "{name domain description provides}"


_BETWEEN = " \ue000 "
"""A word nobody can search for, so that no term spans two names."""


def searched(pack: PackSummary) -> tuple[str, str, str, str, str]:
    """What the table `words` holds of a pack: its words as `query.words` makes them."""
    provides = _BETWEEN.join(" ".join(words(name)) for name in pack.provides)
    name, domain, about = (" ".join(words(t)) for t in (pack.name, pack.domain, pack.description))
    # one word that stands for exactly this base, and one for this domain
    facets = f"base{pack.base.name.encode().hex()} domain{pack.domain.encode().hex()}"
    return name, domain, about, provides, facets


def search(cache: Cache, query: Query, limit: int | None) -> Found:
    """The packs a query means: the name as it was typed first, names that begin so, the rest."""
    if cache.meta("wordless"):
        return best(_all(cache), query, limit)
    most = -1 if limit is None else limit
    with cache.guarded() as db:
        typed = "-".join(query.terms).lower()
        lines: dict[str, bytes] = {}
        if typed or not query.words:
            lines = _beginning(db, query, typed, most)
        if not query.words:
            total = _count_all(db, query)
        else:
            total = _count(db, _expression(query, _ANYWHERE))
            _fill(db, query, lines, total, most)
    packs = [PackSummary.model_validate_json(line) for line in lines.values()]
    return Found(tuple(packs[:limit]), total)


def _all(cache: Cache) -> list[PackSummary]:
    with cache.guarded() as db:
        rows = db.execute("SELECT line FROM packs")
        return [PackSummary.model_validate_json(line) for (line,) in rows]


def _beginning(db: sqlite3.Connection, query: Query, typed: str, most: int) -> dict[str, bytes]:
    rows = db.execute(
        "SELECT name, line FROM packs WHERE NOT yanked AND name >= ? AND name < ? "
        "AND base = ifnull(?, base) AND domain = ifnull(?, domain) ORDER BY name LIMIT ?",
        (typed, typed + "\x7f", query.base, query.domain, most),
    )
    return dict(rows.fetchall())


def _count_all(db: sqlite3.Connection, query: Query) -> int:
    if facets := _facets(query):
        return _count(db, facets)
    found = db.execute("SELECT count(*) FROM packs WHERE NOT yanked AND name >= ''")
    return int(found.fetchone()[0])


def _count(db: sqlite3.Connection, expression: str) -> int:
    (total,) = db.execute(
        "SELECT count(*) FROM words WHERE words MATCH ?", (expression,)
    ).fetchone()
    return int(total)


def _facets(query: Query) -> str:
    wanted = []
    for kind, value in (("base", query.base), ("domain", query.domain)):
        if value is not None:
            wanted.append(f'facets : "{kind}{value.encode().hex()}"')
    return " AND ".join(wanted)


def _expression(query: Query, columns: str) -> str:
    facets = _facets(query)
    return f"{columns} : ({query.expression})" + (f" AND {facets}" if facets else "")


def _fill(
    db: sqlite3.Connection, query: Query, lines: dict[str, bytes], total: int, most: int
) -> None:
    """Add matches until there are enough."""
    if total <= RANKED or most < 0:
        _add(db, _expression(query, _ANYWHERE), lines, most, ranked=total <= RANKED)
        return
    named = _expression(query, _NAMED)
    _add(db, named, lines, most, ranked=_count(db, named) <= RANKED)
    if len(lines) < most:
        _add(db, _expression(query, _ANYWHERE), lines, most, ranked=False)


def _add(
    db: sqlite3.Connection, expression: str, lines: dict[str, bytes], most: int, *, ranked: bool
) -> None:
    # a word of the name says more than one of the description
    order = "bm25(words, 10.0, 5.0, 1.0, 5.0, 0.0), rowid" if ranked else "rowid"
    # as many more as are there already could be met again
    wanted = -1 if most < 0 else most + len(lines)
    found = db.execute(
        f"SELECT rowid FROM words WHERE words MATCH ? ORDER BY {order} LIMIT ?",  # noqa: S608
        (expression, wanted),
    ).fetchall()
    for (number,) in found:
        name, line = db.execute("SELECT name, line FROM packs WHERE id = ?", (number,)).fetchone()
        lines.setdefault(name, line)
