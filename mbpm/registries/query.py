"""Searching: every term must begin a word of the name, domain, description or a provided name.

Case and accents do not count, and a term of several words (`x-ray`) means them in a row.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from specs.errors import UsageError
from specs.summary import PackSummary

MAX_TERMS = 50
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Query:
    """What is searched for."""

    terms: tuple[str, ...] = ()
    base: str | None = None
    """Only packs for the base of this name."""
    domain: str | None = None
    """Only packs of this domain."""

    @cached_property
    def words(self) -> tuple[tuple[str, ...], ...]:
        """The words of every term.

        Raises:
            UsageError: a term has none, or there are too many.
        """
        found = tuple(tuple(words(term)) for term in self.terms)
        for term, its in zip(self.terms, found, strict=True):
            if not its:
                raise UsageError(f"`{term}` holds no letter or digit to search for")
        if sum(map(len, found)) > MAX_TERMS:
            raise UsageError(f"more than {MAX_TERMS} words to search for")
        return found

    @property
    def expression(self) -> str:
        """The terms in the language of SQLite's FTS5."""
        # nothing but letters and digits is left of what was typed, so quotes hold it
        return " AND ".join(f'"{" ".join(term)}" *' for term in self.words)

    def matches(self, pack: PackSummary) -> bool:
        """Whether a pack is meant; a pack of which every version is yanked never is."""
        if pack.yanked or self.base not in (None, pack.base.name):
            return False
        if self.domain not in (None, pack.domain):
            return False
        texts = [words(t) for t in (pack.name, pack.domain, pack.description, *pack.provides)]
        return all(any(_holds(text, term) for text in texts) for term in self.words)

    def tier(self, name: str) -> int:
        """How close a name comes to what was typed: 0 is the name itself."""
        typed = "-".join(self.terms).lower()
        if not typed or name == typed:
            return 0
        return 1 if name.startswith(typed) else 2


@dataclass(frozen=True)
class Found:
    """The answer of one registry."""

    packs: tuple[PackSummary, ...]
    """The best ones, the best first."""
    total: int
    """How many there are in all."""


def words(text: str) -> list[str]:
    """The words of a text, without case and accents."""
    if not text.isascii():
        apart = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in apart if not unicodedata.combining(c))
    return _WORD.findall(text.casefold())


def _holds(text: list[str], term: tuple[str, ...]) -> bool:
    *whole, last = term
    return any(
        text[i : i + len(whole)] == whole
        and i + len(whole) < len(text)
        and text[i + len(whole)].startswith(last)
        for i in range(len(text))
    )


def best(packs: Iterable[PackSummary], query: Query, limit: int | None) -> Found:
    """The packs that a query means, out of any."""
    found = [p for p in packs if query.matches(p)]
    found.sort(key=lambda p: (query.tier(p.name), p.name))
    return Found(tuple(found[:limit]), len(found))
