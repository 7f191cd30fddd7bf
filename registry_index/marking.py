"""The two things that may change on an index line: that it is yanked, and that it is deprecated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from registry_index.summarising import changing
from registry_index.tree import split_lines
from registry_index.writing import put_index, writing
from specs.errors import NotFoundError, UsageError
from specs.index_line import IndexLine, check_one_line
from specs.versions import Version


def yank(
    root: Path, name: str, version: Version, *, undo: bool = False, dry_run: bool = False
) -> bool:
    """Hide a version from everybody who does not have it already, or show it again; with `dry_run`
    only tell.

    Returns:
        Whether anything had to be changed.

    Raises:
        NotFoundError: no registry, pack or version like that.
        IntegrityError: its index file is malformed.
        MbpmError: another publisher holds the registry too long.
    """
    return _mark(root, name, version, "yanked", not undo, dry_run)


def deprecate(
    root: Path, name: str, version: Version | None, message: str, *, dry_run: bool = False
) -> bool:
    """Say of a version, or of all, why it should not be used any more; an empty message takes that
    back. Returns and raises as `yank`; also UsageError where the message is not one line."""
    try:
        check_one_line(message)
    except ValueError as error:
        raise UsageError(f"the message {error}") from None
    return _mark(root, name, version, "deprecated", message, dry_run)


def _mark(
    root: Path, name: str, version: Version | None, field: str, value: object, dry_run: bool
) -> bool:
    with writing(root) as registry:
        raw = registry.raw_index(name)
        index = registry.parse(raw, name)
        if version is not None and all(Version(x.version) != version for x in index.lines):
            listed = ", ".join(x.version for x in index.lines[-5:])
            raise NotFoundError(
                f"the registry `{registry.name}` has no {name} {version}",
                hint=f"it has {listed}" if listed else None,
            )
        changed = {
            line.version: line.model_copy(update={field: value})
            for line in index.lines
            if version in (None, Version(line.version)) and getattr(line, field) != value
        }
        if not changed or dry_run:
            return bool(changed)
        with changing(registry, name):
            put_index(root, name, b"".join(_replaced(text, changed) for text in split_lines(raw)))
        return True


def _replaced(text: bytes, changed: Mapping[str, IndexLine]) -> bytes:
    """The changed line in a line's place; all others are kept to the byte."""
    value = json.loads(text)
    if value.get("format", 1) == 1 and value["version"] in changed:
        return changed[value["version"]].canonical()
    return text + b"\n"
