"""The summary of a registry: reading it, and the line of one pack.

    summary/root.json     digest and size of every page and base card
    summary/<sha256>      a page: the lines of the packs whose name hashes to it, sorted by name

Pages are named by their digest, so one moment's root never meets another moment's page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from registry_index.tree import PackIndex, Registry, read_file, split_lines
from specs.errors import IntegrityError, MbpmError
from specs.index_line import IndexLine
from specs.model import MAX_DOCUMENT_BYTES, check_format, describe, load_json
from specs.names import check_name
from specs.summary import MAX_PAGE_BYTES, PackSummary, SummaryRoot, page_of
from specs.versions import Version

SUMMARY_DIR = "summary"
ROOT_FILE = "root.json"
PENDING_FILE = ".pending"
"""Names of packs whose index changed while the summary did not yet; readers then walk."""


BROKEN = "broken"
"""The key of a line for a pack that is there, but whose index file cannot be read."""


@dataclass(frozen=True)
class Problem:
    """A line that cannot be read."""

    name: str | None
    """The pack it is about, where that much is plain."""
    message: str


@dataclass(frozen=True)
class Page:
    """What one page says."""

    packs: tuple[PackSummary, ...]
    lines: tuple[bytes, ...]
    """The bytes of their lines, without the ends."""
    problems: tuple[Problem, ...] = ()
    """Lines that cannot be read; the others count all the same."""


def summary_of(name: str, index: PackIndex, raw: bytes) -> PackSummary | None:
    """The line of one pack; None where a newer mbpm is needed for every version.

    Args:
        name: The pack.
        index: What its index file says.
        raw: The bytes of that file.
    """
    if not index.lines:
        return None
    newest = newest_line(index.lines)
    stands_for = {n for line in index.lines for n in (*line.provides, *line.replaces)}
    return PackSummary(
        name=name,
        version=newest.version,
        domain=newest.domain,
        description=newest.description,
        license=newest.license,
        base=newest.base,
        size=newest.size,
        published=newest.published,
        evals=newest.evals,
        publisher=newest.publisher,
        deprecated=newest.deprecated,
        yanked=newest.yanked,
        provides=tuple(sorted(stands_for - {name})),
        index=(hashlib.sha256(raw).hexdigest(), len(raw)),
    )


def newest_line(lines: Iterable[IndexLine]) -> IndexLine:
    """The line that stands for a pack in lists: one not yanked, a release, the newest."""

    def rank(line: IndexLine) -> tuple[bool, bool, tuple[object, ...]]:
        version = Version(line.version)
        return not line.yanked, version.prerelease is None, version.precedence

    return max(lines, key=rank)


def parse_page(raw: bytes, number: int, pages: int, where: str) -> Page:
    """Read a page whose digest was checked.

    A malformed line costs its own pack only; so does one of another page, or out of order.

    Args:
        raw: JSON lines.
        number: Which page it is.
        pages: How many there are.
        where: What to call it in messages.
    """
    packs: list[PackSummary] = []
    lines: list[bytes] = []
    problems: list[Problem] = []
    last = ""
    for place, text in enumerate(split_lines(raw), 1):
        line_where = f"{where}, line {place}"
        value: object = None
        try:
            value = load_json(text, line_where)
            check_format(value, PackSummary, line_where)
            if (said := _broken(value)) is not None:
                raise IntegrityError(f"{line_where}: {said}")
            pack = PackSummary.model_validate_json(text)
            if page_of(pack.name, pages) != number or pack.name <= last:
                raise IntegrityError(f"{line_where}: `{pack.name}` does not belong here")
        except ValidationError as error:
            problems.append(Problem(_name_of(value), f"{line_where}: {describe(error)}"))
        except MbpmError as error:
            problems.append(Problem(_name_of(value), error.message))
        else:
            last = pack.name
            packs.append(pack)
            lines.append(text)
    return Page(tuple(packs), tuple(lines), tuple(problems))


def _broken(value: object) -> str | None:
    """What the registry itself says is wrong with a pack."""
    said = value.get(BROKEN) if isinstance(value, dict) else None
    return f"`{_name_of(value)}`: {said}"[:500] if isinstance(said, str) else None


def _name_of(value: object) -> str | None:
    name = value.get("name") if isinstance(value, dict) else None
    try:
        return check_name(name) if isinstance(name, str) else None
    except ValueError:
        return None


class Summary:
    """The summary of a registry directory at one moment."""

    def __init__(self, folder: Path, root: SummaryRoot) -> None:
        self.folder = folder
        self.root = root

    def raw_page(self, number: int) -> bytes:
        """The bytes of a page.

        Raises:
            IntegrityError: they are not there, or not what the root says.
        """
        digest, size = self.root.pages[number]
        file = self.folder / digest
        try:
            raw = read_file(file, MAX_PAGE_BYTES) if size else b""
        except OSError as error:
            raise IntegrityError(f"{file}: cannot be read ({error.strerror})") from None
        if hashlib.sha256(raw).hexdigest() != digest:
            raise IntegrityError(f"{file}: its bytes do not match its name")
        return raw

    def page(self, number: int) -> Page:
        """A page; raises as `raw_page`."""
        where = str(self.folder / self.root.pages[number][0])
        return parse_page(self.raw_page(number), number, len(self.root.pages), where)

    def raw_pages(self) -> Iterator[tuple[int, bytes]]:
        """Every page's number and bytes; raises as `raw_page`."""
        for number in range(len(self.root.pages)):
            yield number, self.raw_page(number)


def read_summary(registry: Registry, *, pending: bool = False) -> Summary | None:
    """The summary of a registry directory; None where it has none, or one that is being changed.

    Args:
        registry: The directory.
        pending: Whether one that is being changed will do.

    Raises:
        IntegrityError: the root is malformed; MbpmError for a newer format.
    """
    folder = registry.root / SUMMARY_DIR
    file = folder / ROOT_FILE
    try:
        raw = read_file(file, MAX_DOCUMENT_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not pending and (folder / PENDING_FILE).exists():
        return None
    return Summary(folder, SummaryRoot.parse(raw, str(file)))
