"""Documents as a title and sections: text, Markdown, HTML, PDF."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specs.errors import UsageError
from trainer.data.encoding import decode
from trainer.data.example import normalise

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
PDF_PROGRAM = Path(__file__).with_name("pdf_text.py")
PDF_PAGE_SECONDS, PDF_SECONDS = 20.0, 900.0
"""What a page may take to read, and a whole file."""
MAX_HTML_DEPTH = 200
TEXT_SUFFIXES = frozenset([".txt", ".text"])
MARKDOWN_SUFFIXES = frozenset([".md", ".markdown"])
HTML_SUFFIXES = frozenset([".html", ".htm", ".xhtml"])
PDF_SUFFIXES = frozenset([".pdf"])


@dataclass(frozen=True)
class Section:
    """A heading (empty for text before the first) and the text below it."""

    heading: str
    text: str


@dataclass(frozen=True)
class Document:
    """A title (may be empty) and what stands below it, in order."""

    title: str
    sections: tuple[Section, ...]


def read_document(file: Path, name: str, kind: str) -> Document:
    """Read a document of a kind, which is one of the suffixes above.

    Raises:
        UsageError: it is too large, not UTF-8, damaged, or encrypted.
    """
    size = file.stat().st_size
    if size > MAX_DOCUMENT_BYTES:
        raise UsageError(f"{name}: is {size:,} bytes long, more than {MAX_DOCUMENT_BYTES:,}")
    if kind in PDF_SUFFIXES:
        return read_pdf(file, name)
    text = decode(file.read_bytes(), name)
    if kind in HTML_SUFFIXES:
        return read_html(text, name)
    return read_text(text, markdown=kind in MARKDOWN_SUFFIXES)


def read_text(text: str, *, markdown: bool) -> Document:
    """Plain text is one section; Markdown has a section for each heading."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    title, sections = split_sections(lines, markdown=markdown)
    return Document(title, tuple(sections))


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


_UNREAD = "script, style, noscript, template, svg, nav, header, footer, aside, form, button, iframe"
_BLOCKS = re.compile(
    "p|div|section|article|main|[uod]l|li|table|tr|blockquote|figure|figcaption|address|details"
    "|summary|center|[hb]r"
)


def read_html(text: str, name: str) -> Document:
    """A page without what is not its text (scripts, navigation, headers, footers, forms).

    Read as browsers read it, by lexbor (selectolax): damaged HTML is no error.

    Raises:
        UsageError: elements stand in each other more than `MAX_HTML_DEPTH` deep.
    """
    from selectolax.lexbor import LexborHTMLParser

    page = LexborHTMLParser(text)
    for node in page.css(_UNREAD):
        # a header inside an article holds its heading
        if node.tag in ("header", "footer") and node.css_first("h1") is not None:
            continue
        node.decompose(recursive=True)
    top = page.css_first("main") or page.css_first("article") or page.body
    named = page.css_first("title")
    title = " ".join(named.text().split()) if named is not None else ""
    sections: list[Section] = []
    heading, body = "", [""]

    def close() -> None:
        paragraphs = (_tidy(part) for part in body)
        if text := "\n\n".join(p for p in paragraphs if p):
            sections.append(Section(heading, text))
        body[:] = [""]

    for kind, value in _walk(top, name) if top is not None else ():
        if kind == "text":
            body[-1] += value
        elif kind == "block":
            body.append("")
        else:
            close()
            heading = value
            if kind == "h1" and heading:
                title = heading
    close()
    return Document(title, tuple(sections))


def _walk(node: LexborNode, name: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """("text", …), ("block", "") between paragraphs, or ("h1" to "h6", its text), in order."""
    if depth > MAX_HTML_DEPTH:
        raise UsageError(f"{name}: elements are nested more than {MAX_HTML_DEPTH} deep")
    child = node.child
    while child is not None:
        tag = child.tag or ""
        if tag == "-text":
            yield "text", child.text(deep=False) or child.text_content or ""
        elif re.fullmatch("h[1-6]", tag):
            yield tag, " ".join(child.text().split())
        elif tag == "pre":
            yield "block", ""
            yield "text", "\n" + child.text().strip("\n") + "\n"
            yield "block", ""
        elif tag == "dt":
            # the form in which documents.py knows a term and what it means
            yield "block", ""
            yield "text", f"**{' '.join(child.text().split())}**: "
        elif tag == "dd":
            yield from _walk(child, name, depth + 1)
        elif tag in ("td", "th"):
            yield from _walk(child, name, depth + 1)
            yield "text", " | "
        else:
            block = _BLOCKS.fullmatch(tag) is not None
            if block:
                yield "block", ""
            if tag == "li":
                yield "text", "- "
            yield from _walk(child, name, depth + 1)
            if block:
                yield "block", ""
        child = child.next


def _tidy(text: str) -> str:
    """White space as a browser shows it; the lines of preformatted text stay."""
    if text.startswith("\n") and text.endswith("\n") and text.strip():
        return text.strip("\n")
    return " ".join(text.split()).strip(" |").removesuffix("-").strip()


def read_pdf(file: Path, name: str) -> Document:
    """The text of a PDF, by pypdf; its outline says which lines are headings.

    Words hyphenated at the end of a line are joined, and lines that most pages repeat are dropped.

    Raises:
        UsageError: it is damaged, encrypted, too long, takes too long, or holds no text.
    """
    said = _read_apart(file, name)
    pages: list[list[str]] = [line["page"] for line in said if "page" in line]
    if not any(line.strip() for lines in pages for line in lines):
        raise UsageError(
            f"{name}: holds no text, only pictures", hint="make text of a scan first, by OCR"
        )
    headings: dict[int, set[str]] = {}
    for page, heading in said[-1]["outline"]:
        headings.setdefault(page, set()).add(normalise(heading))
    return Document(said[-1]["title"].strip(), tuple(_pdf_sections(pages, headings)))


def _read_apart(file: Path, name: str) -> list[dict[str, Any]]:
    """What `pdf_text` says of a file, in a process that is ended where it takes too long."""
    command = [sys.executable, "-B", str(PDF_PROGRAM), str(file.absolute()), str(PDF_PAGE_SECONDS)]
    nothing = subprocess.DEVNULL
    with tempfile.TemporaryFile() as out:
        try:
            code = subprocess.run(
                command, stdin=nothing, stdout=out, stderr=nothing, timeout=PDF_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            raise UsageError(
                f"{name}: takes longer than {PDF_SECONDS:g} s to read",
                hint="make text of it first, such as with `pdftotext`, or leave it out",
            ) from None
        out.seek(0)
        said = [json.loads(line) for line in out if line.endswith(b"\n")]
    last = said[-1] if said else {}
    if "error" in last:
        raise UsageError(f"{name}: {last['error']}", hint=last.get("hint"))
    if "outline" not in last:
        pages = sum("page" in line for line in said)
        place = f"page {pages + 1} of {said[0]['pages']}" if said else "its beginning"
        why = f"takes longer than {PDF_PAGE_SECONDS:g} s to read" if code == 1 else "cannot be read"
        raise UsageError(
            f"{name}: {place} {why}",
            hint="make text of it first, such as with `pdftotext`, or leave it out",
        )
    return said


def _pdf_sections(pages: Sequence[Sequence[str]], headings: dict[int, set[str]]) -> list[Section]:
    seen = Counter(key for lines in pages for key in {_without_digits(line) for line in lines})
    often = {key for key, count in seen.items() if len(pages) >= 4 and count > len(pages) / 2}
    sections: list[Section] = []
    heading, body = "", list[str]()

    def close() -> None:
        if text := _join("\n".join(body)):
            sections.append(Section(heading, text))
        body.clear()

    for number, lines in enumerate(pages):
        for line in lines:
            key = normalise(line)
            if key and key in headings.get(number, ()):
                close()
                heading = line.strip()
            elif _without_digits(line) not in often or not line.strip():
                body.append(line.rstrip())
    close()
    return sections


def _without_digits(line: str) -> str:
    return re.sub(r"\d+", "#", line.strip())


def _join(text: str) -> str:
    """Lines of a page joined into paragraphs, which end with a blank line or a short last line."""
    text = re.sub(r"(?<=[a-zà-ÿ])-\n(?=[a-zà-ÿ])", "", text)
    text = re.sub(r"(?<=[.!?:])[ ]*\n(?=[A-Z0-9•\-])", "\n\n", text)
    text = re.sub(r"(?<!\n)\n(?!\n)", " ", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+", " ", text)).strip()
