"""`mbpm search`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.cli import Cli


def test_words_must_all_match(cli: Cli, registry: Path, publish: Callable[..., None]) -> None:
    publish("medical", description="Diagnoses and terms")
    publish("legal", description="Contracts and terms")
    found = cli.ok("search", "terms", "--registry", registry, "--json").json["packs"]
    assert {"medical", "legal"} <= {p["name"] for p in found}
    found = cli.ok("search", "TERMS", "contr", "--registry", registry, "--json").json["packs"]
    assert [p["name"] for p in found] == ["legal"]
    result = cli.ok("search", "legal", "--registry", registry)
    assert "perplexity 20 -> 10" in result.out
    assert not cli.home.exists()


def test_nothing_found(cli: Cli, registry: Path, publish: Callable[..., None]) -> None:
    publish("legal")
    result = cli.ok("search", "astronomy", "--registry", registry)
    assert result.out == ""
    assert "no pack matches" in result.err


def test_newest_release_and_what_is_installed(
    cli: Cli, registry: Path, publish: Callable[..., None]
) -> None:
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    publish("alpha", "1.10.0")
    publish("alpha", "2.0.0-rc.1")
    (found,) = cli.ok("search", "alpha", "--registry", registry, "--json").json["packs"]
    assert (found["version"], found["installed"]) == ("1.10.0", "1.0.0")


def test_text_of_a_pack_cannot_drive_the_terminal(
    cli: Cli, registry: Path, publish: Callable[..., None]
) -> None:
    publish("alpha", description="harmless\x1b]0;title\x07\x1b[2J\rreally")
    result = cli.ok("search", "harmless", "--registry", registry)
    assert "\x1b" not in result.out
    assert "\r" not in result.out
    assert "\x07" not in result.out


def test_a_name_that_is_nearly_right(cli: Cli, registry: Path, publish) -> None:
    publish("legal")
    result = cli.ok("search", "lgeal", "--registry", registry)
    assert "no pack matches" in result.err
    assert "hint: did you mean `mbpm search legal`?" in result.err


def test_facets_and_limit(cli: Cli, registry: Path, publish: Callable[..., None]) -> None:
    for name in ("lease", "letters", "tax"):
        publish(name, domain="law" if name != "tax" else "finance")
    cli.ok("registry", "add", "team", registry)
    cli.ok("install", "lease", "--yes")

    def names(*arguments: object) -> list[str]:
        return [p["name"] for p in cli.ok("search", *arguments, "--json").json["packs"]]

    assert names("--domain", "law") == ["lease", "letters"]
    assert names("--base", "tiny", "--domain", "finance") == ["tax"]
    assert names("--base", "smollm2-135m") == ["medical"]
    assert names("--installed") == ["lease"]
    assert names("--installed", "tax") == []
    limited = cli.ok("search", "--limit", "2", "--json").json
    assert (len(limited["packs"]), limited["total"]) == (2, 4)
    assert "and 2 more; `--limit 0` shows all" in cli.ok("search", "--limit", "2").err
    assert len(names("--limit", "0")) == 4
    assert cli("search", "--limit", "-1").code == 2


def test_where_a_pack_would_come_from(
    cli: Cli, registry: Path, publish: Callable[..., None]
) -> None:
    publish("alpha")
    cli.ok("registry", "add", "team", registry)
    packs = cli.ok("search", "--json").json["packs"]
    assert {p["name"]: p["registry"] for p in packs} == {
        "alpha": str(registry),
        "medical": "bundled",
    }
    assert "FROM" in cli.ok("search").out
    assert "FROM" not in cli.ok("search", "alpha").out
