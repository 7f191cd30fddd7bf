"""Documents as training pairs, made without a model.

Three sorts: `continuation` (the next passage of a text), `section` (what a section says, asked by
its heading) and `definition` (what a term means, where the text itself says so).
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from specs.errors import UsageError
from trainer.data.converters.phrasing import MEANING, pick
from trainer.data.example import Example, normalise
from trainer.data.markup import Document, Section, read_document

if TYPE_CHECKING:
    from trainer.data.files import DataFile

PASSAGE_CHARS = 700
"""Where a passage is cut, at the end of a sentence; about 150 tokens of English."""
MIN_SECTION_CHARS = 40
FILES_AS_GROUPS = 8
"""From this many documents on a file is a group; below, a block of passages is."""
BLOCK_PASSAGES = 6

_TERM = r"[^\W_][^\n*“”\"«».;:!?]{0,58}[^\W_)]|[^\W_]"
_VERB = r"(?:means?|refers? to|is defined as|are defined as|denotes?|stands for|is|are)"
_DEFINITION = re.compile(
    # “Lessee” means …
    rf"(?:^|(?<=[.,;:(] )|(?<=\n))(?:the )?[“\"«](?P<quoted>{_TERM})[”\"»],?\s+"
    rf"(?P<said>(?:shall mean|{_VERB})\s.+?[.;](?=\s|$))"
    # **Lessee**: …, as glossaries have it
    rf"|^(?:[-*] )?\*\*(?P<bold>{_TERM}):?\*\*"
    rf"(?:\s*[:\u2013\u2014-]\s+|\s+(?={_VERB}\s))(?P<rest>\S.+)$",
    re.MULTILINE | re.IGNORECASE,
)
_QUESTION = re.compile(r"[^\W_].{6,}\?$")


def read_documents(files: Sequence[DataFile]) -> Iterator[tuple[str, Example]]:
    """Training pairs of text, Markdown, HTML and PDF files, each with its place.

    A group is a file; of fewer than `FILES_AS_GROUPS` documents, it is a section, or a block of
    consecutive passages, so that a single book can be split too.

    Raises:
        UsageError: a file is empty, too large, damaged, or not UTF-8.
    """
    for file in files:
        document = read_document(file.path, file.name, file.kind)
        found = False
        for place, pair in pairs_of(document, Path(file.group).stem, file.group):
            found = True
            if len(files) >= FILES_AS_GROUPS:
                pair = replace(pair, group=file.group)
            yield f"{file.name}: {place}", pair
        if not found:
            raise UsageError(
                f"{file.name}: expected at least two sentences of text, found "
                f"none to learn from in its {file.path.stat().st_size:,} bytes"
            )


def pairs_of(document: Document, stem: str, group: str) -> Iterator[tuple[str, Example]]:
    """Training pairs of one document, named by its title, else by its file, and their places."""
    title = title_of(document, stem)
    for index, section in enumerate(document.sections):
        passages = split_passages(section.text)
        group_here = f"{group}#{index}"
        place = f"section `{section.heading}`" if section.heading else "the text"
        if question := _asked(section, title):
            yield place, Example.of_pair(question, passages[0], f"{group_here}.0", kind="section")
        for start in range(0, len(passages), BLOCK_PASSAGES):
            block = passages[start : start + BLOCK_PASSAGES]
            inside = f"{group_here}.{start // BLOCK_PASSAGES}"
            for number, passage in enumerate(block, start + 1):
                for pair in definitions(passage, inside):
                    yield f"{place}, passage {number}", pair
            for number, pair in enumerate(_continued(block, title, inside), start + 1):
                yield f"{place}, passage {number}", pair


def title_of(document: Document, stem: str) -> str:
    """A document's own title, else the name of its file in words."""
    return document.title or re.sub(r"[-_]+", " ", stem)


def continuations(text: str, title: str, group: str, kind: str) -> list[Example]:
    """The next passage after each of a text's passages."""
    return list(_continued(split_passages(text), title, group, kind))


def _continued(
    passages: Sequence[str], title: str, group: str, kind: str = "continuation"
) -> Iterator[Example]:
    of = f"this passage of «{title}»" if title else "this passage"
    for before, after in itertools.pairwise(passages):
        yield Example.of_pair(f"Continue {of}:\n\n{before}", after, group, kind=kind)


def _asked(section: Section, title: str) -> str:
    """The question a heading is, or the one its section answers; empty where it answers none."""
    if _QUESTION.match(section.heading):
        return section.heading
    if not section.heading or len(section.text) < MIN_SECTION_CHARS:
        return ""
    return f"What does the section «{section.heading}» of «{title}» say?"


def definitions(passage: str, group: str) -> Iterator[Example]:
    """What a passage itself says its terms mean, worded one of several ways."""
    for found in _DEFINITION.finditer(passage):
        term = (found["quoted"] or found["bold"]).strip()
        answer = (found["rest"] or f"“{term}” {found['said']}").strip()
        if len(answer.split()) < 4 or normalise(answer) == normalise(term):
            continue
        question = pick(MEANING, term, random.Random(normalise(term)))
        yield Example.of_pair(question, answer[0].upper() + answer[1:], group, kind="definition")


def split_passages(text: str) -> list[str]:
    """Consecutive passages of about `PASSAGE_CHARS`, cut at paragraphs, else after sentences."""
    pieces: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        if len(paragraph) <= PASSAGE_CHARS:
            pieces.append(paragraph.strip())
        else:
            pieces.extend(re.split(r"(?<=[.!?。])\s+", paragraph.strip()))
    passages: list[str] = []
    current = ""
    for piece in pieces:
        for start in range(0, len(piece), 2 * PASSAGE_CHARS):
            part = piece[start : start + 2 * PASSAGE_CHARS]
            if current and len(current) + len(part) > PASSAGE_CHARS:
                passages.append(current)
                current = part
            else:
                current = f"{current}\n{part}" if current else part
    if current:
        passages.append(current)
    return passages
