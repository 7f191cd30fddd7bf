"""Packs made up for the resolver, and a rule book that knows nothing of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mbpm.catalogue import Candidate
from mbpm.resolver import Installed, Problem, Request, Solution, resolve
from specs.errors import MbpmError, NotFoundError
from specs.index_line import IndexLine
from specs.manifest import BaseRef
from specs.versions import Requirement, Version

HERE, OLDER, OTHER = "a" * 64, "0" * 64, "c" * 64
ELSEWHERE, NOWHERE = "e" * 64, "f" * 64
BASES = {HERE: "tiny", OLDER: "tiny", OTHER: "other"}
"""What is on offer; nobody offers the base `tiny` of ELSEWHERE, nor `rare` of NOWHERE."""


def pack(name: str, version: str, base: str = HERE, **changes: Any) -> Candidate:
    """A version of a pack; its digest stands for name, version and base."""
    values: dict[str, Any] = {
        "name": name,
        "version": version,
        "domain": name,
        "description": name,
        "license": "MIT",
        "base": BaseRef(name={**BASES, NOWHERE: "rare"}.get(base, "tiny"), fingerprint=base),
        "manifest": hashlib.sha256(f"{name} {version} {base}".encode()).hexdigest(),
        "manifest_size": 1,
        "size": 1,
        "published": "2026-01-01T00:00:00Z",
    }
    return Candidate(IndexLine(**(values | changes)), None)


def problem(
    offers: Sequence[Candidate],
    *wanted: str | Candidate,
    installed: Sequence[Candidate | Installed] = (),
    **changes: Any,
) -> Problem:
    """A problem over what is on offer; `wanted` are `NAME`, `NAME@REQUIREMENT` or a local pack."""
    by_name: dict[str, list[Candidate]] = {}
    standing: dict[str, list[str]] = {}
    for offer in offers:
        by_name.setdefault(offer.line.name, []).append(offer)
        for other in (*offer.line.provides, *offer.line.replaces):
            if offer.line.name not in standing.setdefault(other, []):
                standing[other].append(offer.line.name)

    def lookup(name: str) -> list[Candidate]:
        if name not in by_name:
            raise NotFoundError(f"no pack `{name}`", hint="did you mean `another`?")
        return by_name[name]

    requests = []
    for text in wanted:
        if isinstance(text, Candidate):
            requests.append(Request(text.line.name, pinned=text))
        else:
            name, at, requirement = text.partition("@")
            requests.append(Request(name, Requirement(requirement) if at else None))
    have = [i if isinstance(i, Installed) else Installed(i) for i in installed]
    values: dict[str, Any] = {
        "requests": tuple(requests),
        "installed": {i.candidate.line.name: i for i in have},
        "lookup": lookup,
        "providers": lambda name: standing.get(name, []),
        "bases": BASES,
        "hardware": {"__ram": Version("16.0.0")},
    }
    return Problem(**(values | changes))


def versions(packs: Mapping[str, Candidate] | Solution) -> dict[str, str]:
    """Name -> version."""
    chosen = packs.packs if isinstance(packs, Solution) else packs
    return {name: c.line.version for name, c in chosen.items()}


def choose(*arguments: Any, **options: Any) -> dict[str, str]:
    """Resolve and tell name -> version; arguments as `problem`."""
    return versions(resolve(problem(*arguments, **options)))


def refused(kind: type[MbpmError], *arguments: Any, **options: Any) -> str:
    """The message of an error of this very kind; arguments as `problem`."""
    with pytest.raises(kind) as caught:
        choose(*arguments, **options)
    assert type(caught.value) is kind
    return caught.value.message


def several(name: str, *texts: str, **changes: Any) -> list[Candidate]:
    """Versions of a pack that are alike."""
    return [pack(name, text, **changes) for text in texts]


def upgraded(offers: list[Candidate], *installed: Candidate | Installed, **options: Any) -> Problem:
    """Upgrade everything that is installed."""
    asked = problem(offers, installed=installed, **options)
    return replace(asked, upgrade=frozenset(asked.installed))
