"""`mbpm changelog`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from registry_index.tree import Registry, index_path
from tests.support.cli import Cli
from tests.support.packs import pack_folder

Publish = Callable[..., None]


@pytest.fixture
def alpha(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """A home that knows four versions of `alpha` and has the second."""
    publish("alpha", "0.9.0")
    publish("alpha", "1.0.0", notes="The first one")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    publish("alpha", "1.1.0", notes="More words.\n\nAnd more", metric={"pack": 8.0})
    publish("alpha", "2.0.0", notes="Other words", metric={"name": "accuracy", "pack": 0.75})
    return cli


def versions(text: str) -> list[str]:
    return [x.split()[1] for x in text.splitlines() if x.startswith("alpha ")]


def test_newer_than_the_installed_one(alpha: Cli) -> None:
    result = alpha.ok("changelog", "alpha")
    assert versions(result.out) == ["2.0.0", "1.1.0"]
    lines = result.out.splitlines()
    assert lines[1:4] == ["  Other words", "  accuracy 0.75 (20 without the pack)", ""]
    assert lines[5:] == ["  More words.", "", "  And more", "  perplexity 10 -> 8 (better)"]


def test_all(alpha: Cli) -> None:
    result = alpha.ok("changelog", "alpha", "--all")
    assert versions(result.out) == ["2.0.0", "1.1.0", "1.0.0", "0.9.0"]
    marked = [x for x in result.out.splitlines() if "(installed)" in x]
    assert [x.split()[:2] for x in marked] == [["alpha", "1.0.0"]]
    assert result.out.splitlines()[-2:] == ["  no notes", "  perplexity 10 (20 without the pack)"]


def test_since(alpha: Cli) -> None:
    assert versions(alpha.ok("changelog", "alpha", "--since", "1.1.0").out) == ["2.0.0"]
    assert versions(alpha.ok("changelog", "alpha", "--since", "0.1.0").out)[-1] == "0.9.0"
    assert alpha("changelog", "alpha", "--since", "one").code == 2
    assert alpha("changelog", "alpha", "--since", "1.0.0", "--all").code == 2


def test_nothing_newer(alpha: Cli) -> None:
    alpha.ok("upgrade", "--yes")
    result = alpha.ok("changelog", "alpha")
    assert result.out == ""
    assert "alpha has no version after 2.0.0" in result.err
    assert "`mbpm changelog alpha --all`" in result.err


def test_what_is_not_installed_is_shown_whole(alpha: Cli, registry: Path) -> None:
    alpha.ok("remove", "alpha", "--yes")
    result = alpha.ok("changelog", "alpha", "--registry", registry)
    assert versions(result.out) == ["2.0.0", "1.1.0", "1.0.0", "0.9.0"]
    assert "installed" not in result.out


def test_yanked_and_deprecated(alpha: Cli, registry: Path) -> None:
    file = registry / "index" / index_path("alpha")
    lines = [
        line.model_copy(update={"yanked": line.version == "1.1.0"})
        for line in Registry(registry).lines("alpha")
    ]
    lines[-1] = lines[-1].model_copy(update={"deprecated": "use beta instead"})
    file.write_bytes(b"".join(line.canonical() for line in lines))
    result = alpha.ok("changelog", "alpha")
    heads = [x for x in result.out.splitlines() if x.startswith("alpha ")]
    assert heads[0].endswith("(deprecated)")
    assert "  deprecated: use beta instead" in result.out
    assert heads[1].endswith("(yanked)")


def test_json(alpha: Cli) -> None:
    document = alpha.ok("changelog", "alpha", "--json").json
    assert (document["name"], document["installed"]) == ("alpha", "1.0.0")
    newest = document["versions"][0]
    assert newest["version"] == "2.0.0"
    assert newest["evals"]["metric"] == "accuracy"
    assert (newest["yanked"], newest["deprecated"], newest["installed"]) == (False, None, False)


def test_of_a_pack_from_a_folder(cli: Cli, registry: Path, tmp_path: Path) -> None:
    folder = pack_folder(tmp_path / "mine", "mine", notes="Made at home")
    cli.ok("install", folder, "--registry", registry, "--yes")
    result = cli.ok("changelog", "mine", "--all")
    assert result.out.splitlines()[:2] == [
        "mine 1.0.0  in no registry (installed)",
        "  Made at home",
    ]


def test_nobody_knows_it(cli: Cli, registry: Path) -> None:
    result = cli("changelog", "nothing-such", "--registry", registry)
    assert result.code == 3
