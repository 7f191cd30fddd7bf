"""The inside of `trainer.data.markup.read_pdf`: a program of its own that takes the text of a PDF.

A small file can keep a reader of PDF busy for ever, or fill the memory; a process can be ended. It
says what it finds on standard output as lines of JSON: how many `pages`, each `page` as its lines,
and at the end the `title` and the `outline` as pairs of page and heading; or else an `error`.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

MEMORY_BYTES = 2 << 30
MAX_PAGES = 5000
MAX_CHARS = 64 << 20
"""Characters of text; more than a person writes in a life."""
MAX_OUTLINE_DEPTH = 20


def main(file: str, page_seconds: float) -> None:
    """Read `file`; the process ends with code 1 where a step takes longer than it may."""
    here = str(Path(__file__).parent)  # some of its modules are named as ones of Python
    sys.path[:] = [place for place in sys.path if place != here]
    _limit_memory()
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(page_seconds, exit=True, file=nowhere)
        try:
            _read(file, page_seconds, nowhere)
        except MemoryError:
            _say(error=f"takes more than {MEMORY_BYTES >> 30} GiB of memory to read")
        except Exception as error:  # pypdf raises whatever a damaged file leads it into
            _say(error=f"is not a readable PDF ({type(error).__name__}: {str(error)[:200]})")


def _read(file: str, page_seconds: float, nowhere: Any) -> None:
    from pypdf import PdfReader

    # what it can mend it mends, and says so at length
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    reader = PdfReader(file)
    if reader.is_encrypted and not reader.decrypt(""):
        _say(error="is encrypted", hint="save a copy without a password")
        return
    if len(reader.pages) > MAX_PAGES:
        _say(error=f"has more than {MAX_PAGES:,} pages")
        return
    _say(pages=len(reader.pages))
    length = 0
    for page in reader.pages:
        faulthandler.dump_traceback_later(page_seconds, exit=True, file=nowhere)
        text = page.extract_text()
        length += len(text)
        if length > MAX_CHARS:
            _say(error=f"holds more than {MAX_CHARS:,} characters of text")
            return
        _say(page=text.split("\n"))
    faulthandler.dump_traceback_later(page_seconds, exit=True, file=nowhere)
    outline = list(_outline(reader, reader.outline))
    _say(title=str((reader.metadata and reader.metadata.title) or ""), outline=outline)


def _outline(reader: Any, items: Any, depth: int = 0) -> Any:
    """(page, heading) for every entry of an outline."""
    if depth > MAX_OUTLINE_DEPTH:
        return
    for item in items:
        if isinstance(item, list):
            yield from _outline(reader, item, depth + 1)
        elif (page := reader.get_destination_page_number(item)) is not None:
            yield page, str(item.title)


def _say(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    with suppress(ValueError, OSError):  # macOS refuses it
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        if most == resource.RLIM_INFINITY or most > MEMORY_BYTES:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, most))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
