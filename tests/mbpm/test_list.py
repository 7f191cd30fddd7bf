"""`mbpm list`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.cli import Cli


def test_empty_home_is_not_made(cli: Cli) -> None:
    result = cli.ok("list")
    assert result.out == ""
    assert "no packs are installed" in result.err
    assert "`mbpm search`" in result.err
    assert cli.ok("list", "--json").json == {"generation": 0, "packs": [], "bases": []}
    assert not cli.home.exists()


def test_lists_by_name(cli: Cli, registry: Path, publish: Callable[..., None]) -> None:
    for name in ("gamma", "alpha"):
        publish(name, "1.2.0")
        cli.ok("install", name, "--registry", registry, "--yes")
    lines = cli.ok("list").out.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "BASE", "FROM"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["alpha", "1.2.0", "tiny"],
        ["gamma", "1.2.0", "tiny"],
    ]


def test_while_somebody_writes(cli: Cli, registry: Path, publish: Callable[..., None]) -> None:
    from mbpm.lock import writer_lock
    from mbpm.output import Output

    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    with writer_lock(cli.home, Output("quiet")):
        assert cli.installed() == {"alpha": "1.0.0"}
        cli.ok("show", "alpha")
        cli.ok("verify")


def test_newer_format_is_refused_by_name(cli: Cli) -> None:
    (cli.home / "generations").mkdir(parents=True)
    (cli.home / "current").write_text("1\n")
    (cli.home / "generations" / "1.json").write_text('{"format": 2, "number": 1}')
    result = cli("list")
    assert result.code == 1
    assert "has format 2, and this version of mbpm reads format 1" in result.err


def names(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines()[1:]]


def test_marks_are_shown_and_choose(cli: Cli, registry: Path, publish: Callable[..., None]) -> None:
    publish("words")
    publish("letters", requires={"words": "1"})
    publish("tone")
    cli.ok("install", "letters", "tone", "--registry", registry, "--yes")
    cli.ok("hold", "tone")
    cli.ok("pin", "letters@1")
    lines = cli.ok("list").out.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "BASE", "FROM", "MARKS"]
    assert [line.split(str(registry))[1].strip() for line in lines[1:]] == ["pin 1", "held", "auto"]
    assert names(cli.ok("list", "--auto").out) == ["words"]
    assert names(cli.ok("list", "--manual").out) == ["letters", "tone"]
    assert names(cli.ok("list", "--held").out) == ["tone"]
    assert names(cli.ok("list", "--held", "--manual").out) == ["tone"]
    document = cli.ok("list", "--auto", "--json").json
    assert [p["name"] for p in document["packs"]] == ["words"]
    assert document["bases"] == []
    nothing = cli.ok("list", "--auto", "--held")
    assert (nothing.out, "no installed pack is like that" in nothing.err) == ("", True)


def test_contradictory_choices(cli: Cli) -> None:
    assert cli("list", "--auto", "--manual").code == 2
    assert cli("list", "--partial", "--held").code == 2


def test_upgradable(cli: Cli, registry: Path, publish: Callable[..., None]) -> None:
    publish("alpha")
    publish("beta")
    cli.ok("install", "alpha", "beta", "--registry", registry, "--yes")
    assert cli.ok("list", "--upgradable").out == ""
    publish("alpha", "1.1.0")
    lines = cli.ok("list", "--upgradable").out.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "CANDIDATE", "BASE", "FROM"]
    assert lines[1].split()[:4] == ["alpha", "1.0.0", "1.1.0", "tiny"]
    document = cli.ok("list", "--upgradable", "--json").json
    assert document["candidates"] == {"alpha": "1.1.0"}


def test_a_registry_by_its_name(cli: Cli, registry: Path, publish: Callable[..., None]) -> None:
    publish("alpha")
    cli.ok("registry", "add", "team", registry)
    cli.ok("install", "alpha", "--yes")
    assert cli.ok("list").out.splitlines()[1].split() == ["alpha", "1.0.0", "tiny", "team"]
    assert cli.ok("list", "--json").json["packs"][0]["registry"] == str(registry)


def test_unfinished_downloads(cli: Cli, registry: Path, publish: Callable[..., None]) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    assert "no unfinished downloads" in cli.ok("list", "--partial").err
    files = cli.ok("files", "tiny", "--json").json["files"]
    (weights,) = (f["sha256"] for f in files if f["path"].endswith("weights.gguf"))
    parts = cli.home / "store" / "parts"
    parts.mkdir(exist_ok=True)
    mine = parts / f"{weights}.host.0.{'a' * 32}.part"
    mine.write_bytes(bytes(3000))
    other = parts / f"{'f' * 64}.elsewhere.77.{'b' * 32}.part"
    other.write_bytes(bytes(10))
    (parts / "smollm2-1.0.whl").write_bytes(bytes(5))
    lines = cli.ok("list", "--partial").out.splitlines()
    assert lines[0].split() == ["FILE", "SIZE", "IDLE", "STATE", "FOR"]
    assert lines[1].split()[0] == weights[:16]
    assert lines[1].endswith("waiting        weights.gguf of base tiny")
    assert lines[2].endswith("being fetched  -")
    assert lines[3].split()[0] == "smollm2-1.0.whl"
    document = cli.ok("list", "--partial", "--json").json["partial"]
    assert [(d["key"], d["busy"]) for d in document] == [
        (weights, False),
        ("f" * 64, True),
        ("smollm2-1.0.whl", False),
    ]
    assert document[0]["what"] == "weights.gguf of base tiny"
    assert document[0]["path"] == str(mine)


def test_stays_light(cli: Cli) -> None:
    """`list` is what scripts and prompts call all the time."""
    import subprocess
    import sys

    code = (
        "import sys; from mbpm.__main__ import run; "
        f"assert run(['--home', {str(cli.home)!r}, 'list']) == 0; "
        "print([m for m in ('numpy', 'torch', 'httpx', 'sqlite3', 'resolvelib') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
