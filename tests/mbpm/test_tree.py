"""`mbpm tree`, and the graph and the drawing behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mbpm.drawing import ASCII, BOX, draw, lines_for
from mbpm.graph import Graph, Node
from specs.generation import Generation
from tests.support.cli import Cli
from tests.support.packs import pack_folder

Publish = Callable[..., None]


@pytest.fixture
def office(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """A home where `office` was asked for, and brought others along."""
    publish("words", "1.1.0")
    publish("grammar", "2.0.0", requires={"words": "1"})
    publish("tone", "0.3.0", provides=["style"])
    publish(
        "office",
        "3.0.0",
        requires={"words": "^1.1", "grammar": "2"},
        recommends={"tone": "*"},
    )
    cli.ok("install", "office", "--registry", registry, "--yes")
    return cli


def test_everything_from_what_was_asked_for(office: Cli) -> None:
    assert office.ok("tree").out.splitlines() == [
        "office 3.0.0",
        "|-- grammar 2.0.0 (2, auto)",
        "|   |-- words 1.1.0 (1, auto)",
        "|   |   `-- base tiny",
        "|   `-- base tiny",
        "|-- words 1.1.0 (^1.1, auto) (*)",
        "|-- tone 0.3.0 (*, recommended, auto)",
        "|   `-- base tiny",
        "`-- base tiny",
    ]


def test_one_pack(office: Cli) -> None:
    assert office.ok("tree", "grammar").out.splitlines() == [
        "grammar 2.0.0 (auto)",
        "|-- words 1.1.0 (1, auto)",
        "|   `-- base tiny",
        "`-- base tiny",
    ]


def test_depth(office: Cli) -> None:
    assert office.ok("tree", "--depth", 0).out.splitlines() == ["office 3.0.0"]
    lines = office.ok("tree", "office", "--depth", "1").out.splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["grammar", "words", "tone", "base"]
    assert not any("(*)" in line for line in lines)
    document = office.ok("tree", "--depth", "1", "--json").json
    assert [n["name"] for n in document["nodes"]] == ["office", "grammar", "words", "tone", "tiny"]
    assert office("tree", "--depth", "-1").code == 2


def test_inverted_from_the_base(office: Cli) -> None:
    assert office.ok("tree", "--invert").out == office.ok("tree", "tiny", "-i").out
    lines = office.ok("tree", "tiny", "--invert").out.splitlines()
    assert lines[0] == "base tiny"
    assert lines[1:3] == ["|-- grammar 2.0.0 (auto)", "|   `-- office 3.0.0 (requires grammar 2)"]
    assert lines[-1] == "    `-- office 3.0.0 (requires words ^1.1)"


def test_json_has_every_edge_once(office: Cli) -> None:
    document = office.ok("tree", "--json").json
    assert document["roots"] == [{"kind": "pack", "name": "office"}]
    nodes = {n["name"]: n for n in document["nodes"]}
    assert sorted(nodes) == ["grammar", "office", "tiny", "tone", "words"]
    assert nodes["words"]["version"] == "1.1.0"
    assert nodes["words"]["auto"] is True
    assert nodes["tiny"]["kind"] == "base"
    assert {(e["relation"], e["name"], e["requirement"]) for e in nodes["office"]["needs"]} == {
        ("requires", "words", "^1.1"),
        ("requires", "grammar", "2"),
        ("recommends", "tone", "*"),
        ("base", "tiny", ""),
    }


def test_a_circle_ends(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("alpha", requires={"beta": "1"})
    publish("beta", requires={"alpha": "1"})
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    assert cli.ok("tree").out.splitlines() == [
        "alpha 1.0.0",
        "|-- beta 1.0.0 (1, auto)",
        "|   |-- alpha 1.0.0 (1) (*)",
        "|   `-- base tiny",
        "`-- base tiny",
    ]
    cli.ok("mark", "auto", "alpha")
    assert cli.ok("tree").out.splitlines()[0] == "alpha 1.0.0 (auto)"


def test_a_name_that_another_pack_provides(cli: Cli, registry: Path, publish: Publish) -> None:
    publish("tone", provides=["style"])
    publish("letters", requires={"style": "*"})
    cli.ok("install", "letters", "--registry", registry, "--yes")
    assert "|-- tone 1.0.0 (stands for style, auto)" in cli.ok("tree").out
    assert cli.ok("tree", "style").out.startswith("tone 1.0.0 (auto)\n")


def test_what_is_not_there(
    cli: Cli, registry: Path, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("letters", recommends={"tone": "1"}, requires={"__ram": ">=1"})
    monkeypatch.setenv("MBPM_OVERRIDE_RAM", "8")
    cli.ok("install", "letters", "--registry", registry, "--yes")
    lines = cli.ok("tree").out.splitlines()
    assert "|-- __ram (>=1, this machine)" in lines
    assert "|-- tone (1, recommended, not installed)" in lines


def test_a_base_that_nothing_uses_is_a_root(cli: Cli, registry: Path) -> None:
    cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    assert cli.ok("tree").out.splitlines() == ["base tiny"]


def test_nothing_installed(cli: Cli) -> None:
    result = cli.ok("tree")
    assert (result.out, "no packs are installed" in result.err) == ("", True)
    assert cli.ok("tree", "--json").json == {"roots": [], "nodes": []}


def test_unknown_name(office: Cli) -> None:
    result = office("tree", "ofice")
    assert result.code == 3
    assert "did you mean `office`?" in result.err


def test_a_damaged_manifest_hides_nothing_else(office: Cli) -> None:
    record = next(p for p in office.ok("list", "--json").json["packs"] if p["name"] == "grammar")
    digest = record["manifest"]
    file = office.home / "store" / "blobs" / "sha256" / digest[:2] / digest
    file.chmod(0o600)
    file.write_text("{}")
    lines = office.ok("tree").out.splitlines()
    assert lines[:3] == ["office 3.0.0", "|-- grammar 2.0.0 (2, auto)", "|   `-- base tiny"]


def test_box_drawing_where_it_can_be_shown() -> None:
    assert lines_for("utf-8") is BOX
    assert lines_for("ascii") is ASCII
    assert lines_for("latin-1") is ASCII
    assert lines_for(None) is ASCII
    assert lines_for("no-such-encoding") is ASCII
    drawn = draw(["a"], lambda n: (n, ["b", "c"] if n == "a" else []), BOX)
    assert list(drawn) == ["a", "├── b", "└── c"]


def test_a_very_long_chain() -> None:
    drawn = list(draw([0], lambda n: (str(n), [n + 1] if n < 5000 else []), ASCII))
    assert len(drawn) == 5001


def test_an_empty_graph() -> None:
    graph = Graph(Generation(number=0, created="", command=""), {})
    assert list(graph.nodes()) == []
    assert graph.needs(Node("pack", "x")) == ()


def test_local_packs_too(cli: Cli, registry: Path, publish: Publish, tmp_path: Path) -> None:
    publish("words")
    folder = pack_folder(tmp_path / "mine", "mine", requires={"words": "1"})
    cli.ok("install", folder, "--registry", registry, "--yes")
    assert cli.ok("tree", "--depth", "1").out.splitlines()[:2] == [
        "mine 1.0.0",
        "|-- words 1.0.0 (1, auto)",
    ]
