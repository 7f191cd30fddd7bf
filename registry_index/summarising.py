"""Keeping the summary of a registry directory true; every function here wants its lock held.

The pages come first and the root last, so that a reader always finds a root whose pages are
there. What an interrupted writer left undone stands in `summary/.pending`, for the next one to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from registry_index.summary import (
    BROKEN,
    PENDING_FILE,
    ROOT_FILE,
    SUMMARY_DIR,
    Summary,
    read_summary,
    summary_of,
)
from registry_index.tree import BASES_DIR, Registry, read_file
from registry_index.writing import put_bytes
from specs.base_card import BaseCard
from specs.errors import DoesNotFitError, IntegrityError, MbpmError, NotFoundError, disk_full
from specs.model import MAX_DOCUMENT_BYTES, canonical_json
from specs.names import check_name
from specs.summary import MAX_BASES, SummaryRoot, page_count, page_of

STALE_SECONDS = 24 * 3600.0
"""How long the pages of older roots stay, for clients that read while a new one was written."""
_PENDING = Path(SUMMARY_DIR, PENDING_FILE)

Lines = dict[str, bytes]
"""Name -> line."""


@contextlib.contextmanager
def changing(registry: Registry, *names: str) -> Iterator[None]:
    """Change the index files of packs (or base cards), and afterwards the summary.

    Raises:
        DoesNotFitError: the disk is full, and only the summary is not changed.
    """
    mend(registry)
    put_bytes(registry.root, _PENDING, json.dumps(names).encode())
    yield
    try:
        mend(registry)
    except OSError as error:
        if not disk_full(error):
            raise
        raise DoesNotFitError(
            f"{registry.root}: the disk is full; the index is changed, and its summary is not yet",
            hint=f"free some space, then `python -m registry_index summarise {registry.root}`",
        ) from None


def mend(registry: Registry) -> None:
    """Bring the summary up to date where a writer began to change something."""
    try:
        raw = read_file(registry.root / _PENDING, MAX_DOCUMENT_BYTES)
    except FileNotFoundError:
        return
    # where the mark or the summary cannot be read, everything is looked at
    with contextlib.suppress(IntegrityError, ValueError, TypeError):
        names = [check_name(name) for name in json.loads(raw)]
        if (summary := read_summary(registry, pending=True)) is not None:
            _update(registry, summary, names)
            return
    rebuild(registry)


def rebuild(registry: Registry) -> list[str]:
    """Make the summary anew from the index files.

    Returns:
        What is wrong with packs that cannot be read; the summary says so of them.
    """
    lines: Lines = {}
    problems = []
    for name in registry.names():
        line, problem = _line(registry, name)
        if problem:
            problems.append(problem)
        if line:
            lines[name] = line
    _write(registry, _paged(lines, page_count(len(lines))))
    return problems


def _line(registry: Registry, name: str) -> tuple[bytes | None, str | None]:
    """The line of a pack, and what is wrong with its index file."""
    try:
        raw = registry.raw_index(name)
        summary = summary_of(name, registry.parse(raw, name), raw)
    except NotFoundError:
        return None, None
    except IntegrityError as error:
        # known to be there, so that nobody takes the name from another registry
        said = error.message.replace(f"{registry.root}{os.sep}", "")[:400]
        return canonical_json({"format": 1, "name": name, BROKEN: said}), error.message
    return (summary.canonical() if summary else None), None


def _paged(lines: Lines, pages: int) -> dict[int, Lines]:
    paged: dict[int, Lines] = {number: {} for number in range(pages)}
    for name, line in lines.items():
        paged[page_of(name, pages)][name] = line
    return paged


def _update(registry: Registry, summary: Summary, names: Iterable[str]) -> None:
    pages = len(summary.root.pages)
    changed: dict[int, Lines] = {}
    packs = summary.root.packs
    for name in names:
        number = page_of(name, pages)
        if number not in changed:
            changed[number] = split(summary.raw_page(number))
        packs -= name in changed[number]
        line, _ = _line(registry, name)
        changed[number].pop(name, None)
        if line is not None:
            changed[number][name] = line
            packs += 1
    if page_count(packs) > pages:
        lines: Lines = {}
        for number, raw in summary.raw_pages():
            lines |= changed.get(number) or split(raw)
        _write(registry, _paged(lines, page_count(packs)))
    else:
        _write(registry, changed, summary.root, packs)


def split(raw: bytes) -> Lines:
    """The lines of a page by name, of whatever format they are.

    Raises:
        IntegrityError: one of them names no pack.
    """
    lines = {}
    for line in raw.splitlines(keepends=True):
        try:
            name = json.loads(line)["name"]
            lines[check_name(name)] = line
        except (ValueError, TypeError, KeyError, RecursionError):
            raise IntegrityError("a line of the summary names no pack") from None
    return lines


def _write(
    registry: Registry,
    changed: Mapping[int, Lines],
    old: SummaryRoot | None = None,
    packs: int | None = None,
) -> None:
    """Write pages, then the root, then forget what was pending."""
    root, folder = registry.root, registry.root / SUMMARY_DIR
    pages = list(old.pages) if old else [("", 0)] * len(changed)
    for number, lines in changed.items():
        raw = b"".join(lines[name] for name in sorted(lines))
        digest = hashlib.sha256(raw).hexdigest()
        pages[number] = (digest, len(raw))
        if raw and not (folder / digest).is_file():
            put_bytes(root, Path(SUMMARY_DIR, digest), raw)
    if packs is None:
        packs = sum(map(len, changed.values()))
    bases, files = _bases(registry)
    new = SummaryRoot(packs=packs, pages=tuple(pages), bases=bases, base_files=files)
    put_bytes(root, Path(SUMMARY_DIR, ROOT_FILE), new.canonical())
    (root / _PENDING).unlink(missing_ok=True)
    _drop_stale(folder, {digest for digest, _ in pages})


def _bases(registry: Registry) -> tuple[dict[str, tuple[str, int]], tuple[str, ...]]:
    """The digest and size of every card, and the files of bases that are here."""
    found: dict[str, tuple[str, int]] = {}
    here = set()
    for name in registry.base_names()[:MAX_BASES]:
        # a card that cannot be read is nobody's to use
        with contextlib.suppress(ValueError, OSError, MbpmError):
            raw = read_file(
                registry.root / BASES_DIR / f"{check_name(name)}.json", MAX_DOCUMENT_BYTES
            )
            card = BaseCard.parse(raw, name)
            found[name] = (hashlib.sha256(raw).hexdigest(), len(raw))
            digests = [f.blob.sha256 for f in card.files]
            here |= {d for d in digests if registry.blob_path(d).is_file()}
    return found, tuple(sorted(here))


def _drop_stale(folder: Path, used: set[str]) -> None:
    before = time.time() - STALE_SECONDS
    for file in folder.iterdir():
        if len(file.name) == 64 and file.name not in used:
            with contextlib.suppress(OSError):
                if file.stat().st_mtime < before:
                    file.unlink()
