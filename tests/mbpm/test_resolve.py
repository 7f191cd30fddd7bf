"""Choosing versions: pure, over candidates made up here."""

from __future__ import annotations

from typing import Any

import pytest

from mbpm.catalogue import Candidate
from mbpm.resolve import Request, resolve
from specs.errors import IntegrityError, MbpmError, NotFoundError, ResolutionError
from specs.index_line import IndexLine
from specs.manifest import BaseRef
from specs.versions import Requirement

HERE, ELSEWHERE = "a" * 64, "e" * 64


def pack(name: str, version: str, base: str = HERE, **changes: Any) -> Candidate:
    line = IndexLine(
        name=name,
        version=version,
        domain=name,
        description=name,
        license="MIT",
        base=BaseRef(name="tiny", fingerprint=base),
        manifest="0" * 64,
        manifest_size=1,
        size=1,
        published="2026-01-01T00:00:00Z",
        **changes,
    )
    return Candidate(line, None)


def choose(
    offers: list[Candidate], *wanted: str, installed: list[Candidate] | None = None
) -> dict[str, str]:
    """Resolve `NAME` or `NAME@REQUIREMENT` and return name -> version."""

    def lookup(name: str) -> list[Candidate]:
        found = [c for c in offers if c.line.name == name]
        if not found:
            raise NotFoundError(f"no {name}")
        return found

    requests = []
    for text in wanted:
        name, at, requirement = text.partition("@")
        requests.append(Request(name, Requirement(requirement) if at else None))
    have = {c.line.name: c for c in installed or []}
    chosen = resolve(requests, have, lookup, [HERE])
    return {name: c.line.version for name, c in chosen.items()}


def refused(kind: type[MbpmError], *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        choose(*arguments, **options)
    assert type(caught.value) is kind
    return caught.value.message


def test_newest_admitted() -> None:
    offers = [pack("a", v) for v in ("1.10.0", "1.9.0", "2.0.0")]
    assert choose(offers, "a") == {"a": "2.0.0"}
    assert choose(offers, "a@1") == {"a": "1.10.0"}
    assert "you ask for `a 3`" in refused(ResolutionError, offers, "a@3")


def test_pre_release_only_when_named() -> None:
    offers = [pack("a", "1.0.0"), pack("a", "2.0.0-rc.1")]
    assert choose(offers, "a") == {"a": "1.0.0"}
    assert choose(offers, "a@=2.0.0-rc.1") == {"a": "2.0.0-rc.1"}
    assert "is a pre-release" in refused(ResolutionError, offers[1:], "a")


def test_requirements_narrow_an_earlier_choice() -> None:
    offers = [
        pack("a", "1.0.0"),
        pack("a", "2.0.0"),
        pack("b", "1.0.0", requires={"c": "1"}),
        pack("c", "1.0.0", requires={"a": "1"}),
    ]
    assert choose(offers, "a", "b") == {"a": "1.0.0", "b": "1.0.0", "c": "1.0.0"}


def test_what_is_installed_is_preferred_and_keeps_its_word() -> None:
    offers = [pack("a", "1.0.0"), pack("a", "1.5.0"), pack("b", "1.0.0", requires={"a": "1"})]
    old = [pack("a", "1.0.0")]
    assert choose(offers, "b", installed=old) == {"b": "1.0.0", "a": "1.0.0"}
    guard = [*old, pack("guard", "1.0.0", requires={"a": "<1.5"})]
    text = refused(ResolutionError, offers, "a@=1.5.0", installed=guard)
    assert "guard 1.0.0 requires `a <1.5`" in text
    assert "you ask for `a =1.5.0`" in text


def test_requirement_nobody_can_meet() -> None:
    offers = [pack("b", "1.0.0", requires={"a": "1"})]
    assert "b 1.0.0 requires `a 1`, and no registry has `a`" in refused(
        ResolutionError, offers, "b"
    )
    assert "no a" in refused(NotFoundError, offers, "a")


def test_provided_by_another_pack() -> None:
    offers = [
        pack("law", "1.0.0", provides=("legal",)),
        pack("court", "1.0.0", requires={"legal": "1"}),
    ]
    assert choose(offers, "law", "court") == {"law": "1.0.0", "court": "1.0.0"}


def test_conflicts() -> None:
    offers = [pack("a", "1.0.0", conflicts={"b": "<2"}), pack("b", "1.0.0"), pack("b", "2.0.0")]
    assert "a 1.0.0 conflicts with b 1.0.0" in refused(ResolutionError, offers, "a", "b@1")
    assert choose(offers, "a", "b@2") == {"a": "1.0.0", "b": "2.0.0"}
    text = refused(ResolutionError, offers, "a", installed=[pack("b", "1.5.0")])
    assert "conflicts with b 1.5.0" in text
    general = [
        pack("a", "1.0.0", conflicts={"legal": "*"}),
        pack("law", "1.0.0", provides=("legal",)),
    ]
    assert "conflicts with law" in refused(ResolutionError, general, "a", "law")


def test_versions_for_other_bases_are_passed_over() -> None:
    offers = [pack("a", "1.0.0"), pack("a", "2.0.0", base=ELSEWHERE)]
    assert choose(offers, "a") == {"a": "1.0.0"}
    assert "eeeeeeeeeeee" in refused(IntegrityError, offers[1:], "a")
    mixed = [offers[1], pack("a", "1.0.0", yanked=True)]
    text = refused(ResolutionError, mixed, "a")
    assert "1.0.0 is yanked" in text
    assert "2.0.0 was made for base tiny" in text


def test_circle_of_requirements() -> None:
    offers = [pack("a", "1.0.0", requires={"b": "1"}), pack("b", "1.0.0", requires={"a": "1"})]
    assert choose(offers, "a") == {"a": "1.0.0", "b": "1.0.0"}


def test_choices_that_undo_each_other_end() -> None:
    offers = [
        pack("a", "1.0.0"),
        pack("a", "2.0.0", requires={"b": "1"}),
        pack("b", "1.0.0", requires={"a": "1"}),
    ]
    assert "circles" in refused(ResolutionError, offers, "a")
