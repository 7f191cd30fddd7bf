"""The Human Phenotype Ontology (hp.obo) as questions and answers.

Three kinds: `definition` (what does a term mean), `lay-words` (the clinical term for them) and
`definition-to-term` (which of four sibling terms it belongs to). Definitions and terms are used
as they are written; their licence asks for that. The group is the concept.

Format: https://owlcollab.github.io/oboformat/doc/GO.format.obo-1_4.html
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Annotated

from pydantic import Field

from specs.errors import IntegrityError
from specs.model import Contract
from trainer.data.converters.phrasing import MEANING, TERM_FOR, pick, with_options
from trainer.data.encoding import decode
from trainer.data.example import Example, normalise

ROOT = "HP:0000118"
"""Phenotypic abnormality: everything but inheritance, onset and the like."""
MAX_DEFINITION_CHARS = 420
ORDINAL = re.compile(r"\d(st|nd|rd|th)\b")
"""Thousands of terms repeat one abnormality for each finger and toe."""

LAY = (
    "What is the clinical term for '{x}'?",
    'What is the clinical term for "{x}"?',
    "What is the medical term for {x}?",
    "What do doctors call '{x}'?",
    "Give the medical name of: {x}",
    "How would a clinician write '{x}' in a report?",
    "In medical language, what is {x} called?",
)


class HpoOptions(Contract):
    """How many examples of each kind to make, at most."""

    definitions: Annotated[int, Field(ge=0)]
    lay: Annotated[int, Field(ge=0)]
    terms: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Term:
    """One concept: its name, definition, exact lay synonyms and parents."""

    id: str
    name: str
    definition: str
    lay: tuple[str, ...]
    parents: tuple[str, ...]


def convert(raw: bytes, options: HpoOptions, seed: int) -> list[Example]:
    """Examples of the ontology, a seeded sample.

    Raises:
        IntegrityError: `raw` holds no terms of the ontology.
    """
    terms = {t.id: t for t in parse(decode(raw, "hp.obo"))}
    if ROOT not in terms:
        raise IntegrityError(f"hp.obo: has no term {ROOT}")
    children = _children(terms)
    pool = [
        terms[i]
        for i in _descendants(ROOT, children)
        if 10 <= len(terms[i].definition) <= MAX_DEFINITION_CHARS
        and not ORDINAL.search(terms[i].name)
    ]
    rng = random.Random(seed)
    made = [
        *_take(_definitions(_shuffled(pool, rng), rng), options.definitions),
        *_take(_lay(_shuffled(pool, rng), terms, children, rng), options.lay),
        *_take(_terms(_shuffled(pool, rng), terms, children, rng), options.terms),
    ]
    rng.shuffle(made)
    return made


def parse(text: str) -> Iterator[Term]:
    """The `[Term]` stanzas that are not obsolete."""
    for stanza in text.split("\n[")[1:]:
        kind, _, body = stanza.partition("]\n")
        if kind != "Term" or "\nis_obsolete: true" in body:
            continue
        fields: dict[str, list[str]] = {}
        for line in body.splitlines():
            key, _, value = line.partition(": ")
            fields.setdefault(key, []).append(value)
        if "id" not in fields or "name" not in fields:
            continue
        synonyms = [_quoted(s) for s in fields.get("synonym", []) if " EXACT layperson " in s]
        yield Term(
            id=fields["id"][0],
            name=fields["name"][0],
            definition=_quoted(fields.get("def", [""])[0]),
            lay=tuple(synonyms),
            parents=tuple(p.split(" ")[0] for p in fields.get("is_a", [])),
        )


def _quoted(value: str) -> str:
    r"""The text between the first pair of quotes, with OBO's escapes (`\"`, `\n`, `\,`) undone."""
    match = re.match(r'"((?:[^"\\]|\\.)*)"', value)
    if match is None:
        return ""
    text = re.sub(r"\\(.)", lambda m: " " if m[1] in "nt" else m[1], match[1])
    return re.sub(r"\s+", " ", text).strip()


def _children(terms: Mapping[str, Term]) -> dict[str, list[str]]:
    children: dict[str, list[str]] = {}
    for term in terms.values():
        for parent in term.parents:
            children.setdefault(parent, []).append(term.id)
    return children


def _descendants(root: str, children: Mapping[str, Sequence[str]]) -> list[str]:
    """All ids below `root`, each once, in a fixed order."""
    found: dict[str, None] = {}
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found[child] = None
                queue.append(child)
    return sorted(found)


def _shuffled(pool: Sequence[Term], rng: random.Random) -> list[Term]:
    return rng.sample(pool, len(pool))


def _take(examples: Iterator[Example], count: int) -> Iterator[Example]:
    return (example for _, example in zip(range(count), examples, strict=False))


def _definitions(pool: Sequence[Term], rng: random.Random) -> Iterator[Example]:
    for term in pool:
        name = term.name
        if re.match(r"[A-Z][a-z]+\b", name) and rng.random() < 0.4:
            name = name[0].lower() + name[1:]
        yield Example.of_pair(pick(MEANING, name, rng), term.definition, term.id, kind="definition")


def _lay(
    pool: Sequence[Term],
    terms: Mapping[str, Term],
    children: Mapping[str, Sequence[str]],
    rng: random.Random,
) -> Iterator[Example]:
    for term in pool:
        words = [w for w in term.lay if not _alike(w, term.name)]
        if not words:
            continue
        lay = rng.choice(words)
        if re.match(r"[A-Z][a-z]+\b", lay) and rng.random() < 0.6:
            lay = lay[0].lower() + lay[1:]
        yield Example.of_pair(
            pick(LAY, lay, rng),
            term.name,
            term.id,
            choices=_options(term, terms, children, rng),
            kind="lay-words",
        )


def _alike(left: str, right: str) -> bool:
    """Whether two names differ by no more than spelling."""
    return SequenceMatcher(None, normalise(left), normalise(right), False).ratio() > 0.9


def _terms(
    pool: Sequence[Term],
    terms: Mapping[str, Term],
    children: Mapping[str, Sequence[str]],
    rng: random.Random,
) -> Iterator[Example]:
    for term in pool:
        if normalise(term.name) in normalise(term.definition):
            continue
        options = _options(term, terms, children, rng)
        question = with_options(pick(TERM_FOR, term.definition, rng), options, rng)
        yield Example.of_pair(
            question, term.name, term.id, choices=options, kind="definition-to-term"
        )


def _options(
    term: Term,
    terms: Mapping[str, Term],
    children: Mapping[str, Sequence[str]],
    rng: random.Random,
) -> tuple[str, ...]:
    """The term's name among three others: siblings, or where there are too few, cousins."""
    related = {term.id, *term.parents, *children.get(term.id, ())}
    parents: Sequence[str] = term.parents
    others: dict[str, None] = {}
    while len(others) < 3:
        near = {c for p in parents for c in children.get(p, ()) if c not in related}
        near -= others.keys()
        fresh = rng.sample(sorted(near), min(3 - len(others), len(near)))
        others.update(dict.fromkeys(fresh))
        above = [g for p in parents for g in (terms[p].parents if p in terms else ())]
        if not above:
            spare = sorted(terms.keys() - related - others.keys())
            others.update(dict.fromkeys(rng.sample(spare, min(3 - len(others), len(spare)))))
            break
        # one step up, every child of which is again a candidate
        parents = sorted({c for g in above for c in children.get(g, ())} | set(above))
        related |= set(above)
    names = [term.name, *(terms[i].name for i in others)]
    rng.shuffle(names)
    return tuple(names)
