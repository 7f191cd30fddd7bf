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
