"""`mbpm why`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Cli

Publish = Callable[..., None]


@pytest.fixture
def office(cli: Cli, registry: Path, publish: Publish) -> Cli:
    publish("words", "1.1.0", provides=["lexicon"])
    publish("grammar", "2.0.0", requires={"words": "1"})
    publish("office", "3.0.0", requires={"grammar": "2"}, recommends={"words": "*"})
    publish("letters", requires={"lexicon": "*"})
    cli.ok("install", "office", "letters", "--registry", registry, "--yes")
    return cli


def test_chains_up_to_what_was_asked_for(office: Cli) -> None:
    result = office.ok("why", "words")
    assert result.out.splitlines() == [
        "words 1.1.0",
        "|-- grammar 2.0.0 requires `words 1`",
        "|   `-- office 3.0.0 requires `grammar 2` (wanted itself)",
        "|-- letters 1.0.0 requires `lexicon *` (wanted itself)",
        "`-- office 3.0.0 recommends `words *` (wanted itself)",
    ]
    assert result.err == ""


def test_wanted_itself(office: Cli) -> None:
    assert office.ok("why", "office").out == "office 3.0.0 (wanted itself)\n"


def test_a_provided_name(office: Cli) -> None:
    assert office.ok("why", "lexicon").out.startswith("words 1.1.0 (stands for lexicon)\n")


def test_a_base(office: Cli) -> None:
    lines = office.ok("why", "tiny").out.splitlines()
    assert lines[:3] == [
        "base tiny",
        "|-- grammar 2.0.0 was made for it",
        "|   `-- office 3.0.0 requires `grammar 2` (wanted itself)",
    ]
    assert "|-- letters 1.0.0 was made for it (wanted itself)" in lines


def test_nothing_needs_it(office: Cli) -> None:
    office.ok("mark", "auto", "letters")
    result = office.ok("why", "letters")
    assert result.out == "letters 1.0.0\n"
    assert "nothing that was asked for needs letters 1.0.0" in result.err
    assert "`mbpm autoremove`" in result.err


def test_a_circle_that_nobody_asked_for(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha", requires={"beta": "1"})
    publish("beta", requires={"alpha": "1"})
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    assert cli.ok("why", "beta").out.splitlines() == [
        "beta 1.0.0",
        "`-- alpha 1.0.0 requires `beta 1` (wanted itself)",
        "    `-- beta 1.0.0 requires `alpha 1` (*)",
    ]
    cli.ok("mark", "auto", "alpha")
    assert "nothing that was asked for needs beta 1.0.0" in cli.ok("why", "beta").err


def test_json(office: Cli) -> None:
    document = office.ok("why", "words", "--json").json
    assert document["name"] == "words"
    assert document["roots"] == [{"kind": "pack", "name": "words"}]
    nodes = {n["name"]: n for n in document["nodes"]}
    assert sorted(nodes) == ["grammar", "letters", "office", "words"]
    assert nodes["words"]["auto"] is True
    assert nodes["office"]["auto"] is False
    assert [(e["name"], e["relation"], e["wanted"]) for e in nodes["words"]["needed_by"]] == [
        ("grammar", "requires", "words"),
        ("letters", "requires", "lexicon"),
        ("office", "recommends", "words"),
    ]


def test_not_installed(office: Cli) -> None:
    result = office("why", "word")
    assert result.code == 3
    assert "pack `word` is not installed" in result.err
    assert "did you mean `words`?" in result.err
