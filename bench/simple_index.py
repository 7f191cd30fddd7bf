"""The requirements of made-up packs as a Python package index, for pip and uv to choose from.

A pack is a project, `^2` is `>=2,<3`, and metadata stands beside the (empty) wheels (PEP 658).
Python has neither conflicts nor names that others provide, so those are left out, and the task is
a little easier than ours.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

from bench.many_packs import is_virtual, lines_of, name_of


def write(root: Path, requested: Iterable[int]) -> int:
    """Write what these packs can lead to; returns how many projects that are."""
    queue, seen = list(requested), set()
    while queue:
        number = queue.pop()
        if number in seen:
            continue
        seen.add(number)
        queue += _project(root, number)
    return len(seen)


def _project(root: Path, number: int) -> list[int]:
    name = name_of(number).replace("-", "_")
    folder = root / "simple" / name_of(number)
    folder.mkdir(parents=True)
    links, found = [], set()
    for line in lines_of(number, "0" * 64):
        requires = {n: r for n, r in _requires(line) if not is_virtual(n)}
        found |= {int(n.rpartition("-")[2]) for n in requires}
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {line['version']}\n"
        text += "".join(f"Requires-Dist: {n} {_range(r)}\n" for n, r in requires.items())
        wheel = f"{name}-{line['version']}-py3-none-any.whl"
        (folder / f"{wheel}.metadata").write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        whole = _wheel(folder / wheel, f"{name}-{line['version']}.dist-info", text)
        yanked = ' data-yanked=""' if line["yanked"] else ""
        links.append(
            f'<a href="{wheel}#sha256={whole}" data-dist-info-metadata="sha256={digest}" '
            f'data-core-metadata="sha256={digest}"{yanked}>{wheel}</a><br>'
        )
    (folder / "index.html").write_text("<!DOCTYPE html><html><body>" + "\n".join(links))
    return sorted(found)


def _wheel(file: Path, folder: str, metadata: str) -> str:
    """Write a wheel with nothing in it; returns its digest."""
    kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{folder}/METADATA", metadata)
        archive.writestr(f"{folder}/WHEEL", kind)
        archive.writestr(f"{folder}/RECORD", "")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _requires(line: dict[str, object]) -> Iterable[tuple[str, str]]:
    requires = line["requires"]
    assert isinstance(requires, dict)
    return requires.items()


def _range(requirement: str) -> str:
    if requirement.startswith("^"):
        major = int(requirement[1:])
        return f">={major},<{major + 1}"
    return requirement
