"""Documents as training pairs, made without a model.

Two sorts: the next passage of a text, and what a section says, asked by its heading.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from specs.errors import UsageError
from trainer.data.reading import MAX_DOCUMENT_BYTES, Example, decode

PASSAGE_CHARS = 700
"""Where a passage is cut, at the end of a sentence; about 150 tokens of English."""
MIN_SECTION_CHARS = 40
FILES_AS_GROUPS = 8
"""From this many documents on a file is a group; below, a block of passages is."""
BLOCK_PASSAGES = 6


@dataclass(frozen=True)
class Section:
    """A heading (empty for text before the first) and the text below it."""

    heading: str
    text: str


def read_documents(files: Sequence[Path], root: Path) -> list[Example]:
    """Training pairs of text and Markdown files.

    A group is a file, named relative to `root`; of fewer than `FILES_AS_GROUPS` documents, it is a
    section, or a block of consecutive passages, so that a single book can be split too.

    Raises:
        UsageError: a file is empty, too large, or not UTF-8.
    """
    examples: list[Example] = []
    for file in files:
        name = file.relative_to(root).as_posix()
        pairs = list(_pairs(file, name))
        if not pairs:
            raise UsageError(
                f"{file}: expected at least two sentences of text, found "
                f"{file.stat().st_size:,} bytes without"
            )
        if len(files) >= FILES_AS_GROUPS:
            pairs = [Example(p.messages, name, (), p.kind) for p in pairs]
        examples.extend(pairs)
    return examples


def _pairs(file: Path, name: str) -> Iterator[Example]:
    size = file.stat().st_size
    if size > MAX_DOCUMENT_BYTES:
        raise UsageError(f"{file}: is {size:,} bytes long, more than {MAX_DOCUMENT_BYTES:,}")
    text = decode(file.read_bytes(), str(file)).removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    title, sections = split_sections(lines, markdown=file.suffix.lower() != ".txt")
    title = title or re.sub(r"[-_]+", " ", file.stem)
    for index, section in enumerate(sections):
        passages = split_passages(section.text)
        group = f"{name}#{index}"
        if section.heading and len(section.text) >= MIN_SECTION_CHARS:
            question = f"What does the section «{section.heading}» of «{title}» say?"
            yield Example.of_pair(question, passages[0], f"{group}.0", kind="section")
        for start in range(0, len(passages), BLOCK_PASSAGES):
            block = passages[start : start + BLOCK_PASSAGES]
            for before, after in itertools.pairwise(block):
                prompt = f"Continue this passage of «{title}»:\n\n{before}"
                place = f"{group}.{start // BLOCK_PASSAGES}"
                yield Example.of_pair(prompt, after, place, kind="continuation")


def split_sections(lines: Sequence[str], *, markdown: bool) -> tuple[str, list[Section]]:
    """The title (first heading of level 1) and the sections; code fences hide headings in them."""
    title, heading, fence = "", "", ""
    body: list[str] = []
    sections: list[Section] = []

    def close() -> None:
        text = "\n".join(body).strip()
        if text:
            sections.append(Section(heading, text))
        body.clear()

    for line in lines:
        mark = re.match(r"\s{0,3}(`{3,}|~{3,})", line)
        if markdown and mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        found = None if fence or not markdown else re.match(r"(#{1,6})\s+(.+?)\s*#*\s*$", line)
        under = None if fence or not markdown else re.fullmatch(r"(=+|-{3,})\s*", line)
        if under and body and body[-1].strip() and (len(body) == 1 or not body[-2].strip()):
            text = body.pop().strip()
            close()
            heading = text
            title = title or (text if under[1][0] == "=" else "")
        elif found:
            close()
            heading = found[2]
            title = title or (heading if found[1] == "#" else "")
        else:
            body.append(line)
    close()
    return title, sections


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
