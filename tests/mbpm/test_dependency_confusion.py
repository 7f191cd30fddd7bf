"""One test per way to slip in a pack from another registry than the one that provided its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mbpm.home import Home
from mbpm.registries import origins, remote
from tests.support.cli import Cli
from tests.support.packs import pack_folder, published, registry_with_base
from tests.support.static import Static, serve


class Registries:
    """Registries by name, each a folder of its own, made when first published to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> Path:
        root = self.folder / "registries" / name
        if not root.exists():
            registry_with_base(root, self.folder / "base-files")
        return root

    def publish(self, registry: str, name: str, version: str = "1.0.0", **changes: Any) -> None:
        """Publish a pack whose licence file says which registry it is of."""
        folder = self.folder / "made" / f"{registry}-{name}-{version}"
        changes.setdefault("files", {"LICENSE": registry.encode()})
        published(pack_folder(folder, name, version, **changes), self[registry])


@pytest.fixture
def registries(tmp_path: Path) -> Registries:
    return Registries(tmp_path)


@pytest.fixture
def two(cli: Cli, registries: Registries) -> Registries:
    """`ours` has `internal`, and `public` has a higher version under the same name."""
    registries.publish("ours", "internal")
    registries.publish("public", "other")
    cli.ok("registry", "add", "ours", registries["ours"])
    cli.ok("registry", "add", "public", registries["public"])
    cli.ok("install", "internal", "--yes")
    registries.publish("public", "internal", "99.0.0")
    return registries


def sources(cli: Cli) -> dict[str, str]:
    """Name -> folder name of the registry, of what is installed."""
    packs = cli.ok("list", "--json").json["packs"]
    return {p["name"]: Path(p["registry"]).name for p in packs}


def test_a_higher_version_in_another_registry_is_no_upgrade(cli: Cli, two: Registries) -> None:
    assert "everything is up to date" in cli.ok("upgrade", "--yes").err
    assert cli("install", "internal@99", "--yes").code == 4
    assert cli.installed() == {"internal": "1.0.0"}


def test_a_registry_of_higher_priority_takes_over_no_name(cli: Cli, two: Registries) -> None:
    cli.ok("registry", "priority", "public", "1000")
    cli.ok("upgrade", "--yes")
    assert cli.installed() == {"internal": "1.0.0"}
    assert "1.0.0" in cli.ok("show", "internal").out
    found = cli.ok("search", "internal", "--json").json["packs"]
    assert [(p["version"], Path(p["registry"]).name) for p in found] == [("1.0.0", "ours")]


def test_a_name_stays_bound_after_the_pack_was_removed(cli: Cli, two: Registries) -> None:
    cli.ok("registry", "priority", "public", "1000")
    cli.ok("remove", "internal", "--yes")
    cli.ok("install", "internal", "--yes")
    assert sources(cli) == {"internal": "ours"}


def test_a_dependency_is_not_taken_from_another_registry(cli: Cli, two: Registries) -> None:
    two.publish("public", "wants-it", requires={"internal": ">=99"})
    result = cli("install", "wants-it", "--yes")
    assert result.code == 4
    assert cli.installed() == {"internal": "1.0.0"}


def test_a_deleted_pack_is_not_taken_from_another_registry(cli: Cli, two: Registries) -> None:
    shutil.rmtree(two["ours"] / "index")
    cli.ok("remove", "internal", "--yes")
    result = cli("install", "internal", "--yes")
    assert result.code == 3
    assert "which does not have it any more" in result.err
    assert "hint: `--registry NAME` takes `internal` from another registry" in result.err


def test_a_registry_that_is_gone_is_not_replaced_by_another(cli: Cli, two: Registries) -> None:
    cli.ok("remove", "internal", "--yes")
    cli.ok("registry", "remove", "ours")
    shutil.rmtree(two["ours"])
    result = cli("install", "internal", "--yes")
    assert result.code == 3
    assert f"`internal` came from the registry {two.folder / 'registries' / 'ours'}" in result.err
    assert "which is gone" in result.err


def test_a_registry_that_is_not_configured_any_more_is_an_error(
    cli: Cli, registries: Registries
) -> None:
    registries.publish("ours", "internal", files={})
    with serve(registries["ours"]) as site:
        files = {"weights.gguf": registries.folder / "base-files" / "tiny.gguf"}
        _serve_base(registries["ours"], files)
        cli.ok("registry", "add", "ours", site.url)
        cli.ok("install", "internal", "--yes")
        assert "get no upgrades now: internal" in cli.ok("registry", "remove", "ours").err
        cli.ok("remove", "internal", "--yes")
        registries.publish("public", "internal", "99.0.0")
        cli.ok("registry", "add", "public", registries["public"])
        result = cli("install", "internal", "--yes")
        assert result.code == 3
        assert f"came from the registry {site.url}, which is not configured any more" in result.err
        assert f"`mbpm registry add NAME {site.url}`" in result.err
        cli.ok("registry", "add", "again", site.url)
        cli.ok("install", "internal", "--yes")
        assert cli.installed() == {"internal": "1.0.0"}


def _serve_base(root: Path, files: dict[str, Path]) -> None:
    from registry_index.publish import publish_base
    from registry_index.tree import Registry

    publish_base(Registry(root).base("tiny"), root, files)


def test_registry_on_the_command_line_is_told_otherwise(cli: Cli, two: Registries) -> None:
    plan = cli.ok("install", "internal@99", "--registry", "public", "-s", "--json").json["plan"]
    (pack,) = plan["packs"]
    assert (pack["new"], Path(pack["registry"]).name) == ("99.0.0", "public")
    assert sources(cli) == {"internal": "ours"}
    cli.ok("install", "internal@99", "--registry", "public", "--yes")
    assert sources(cli) == {"internal": "public"}
    # and from now on it comes from there
    two.publish("public", "internal", "99.1.0")
    two.publish("ours", "internal", "100.0.0")
    cli.ok("upgrade", "--yes")
    assert cli.installed() == {"internal": "99.1.0"}


def test_killed_right_after_it_was_told_otherwise(
    cli: Cli, two: Registries, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(origins, "record", killed)
    assert cli("install", "internal@99", "--registry", "public", "--yes").code == 130
    monkeypatch.undo()
    cli.ok("gc", "--yes")
    assert sources(cli) == {"internal": "public"}
    assert origins.read(Home(cli.home))["internal"] == str(two["public"])


def test_a_new_name_comes_from_the_highest_priority(cli: Cli, registries: Registries) -> None:
    registries.publish("ours", "fresh")
    registries.publish("public", "fresh", "99.0.0")
    cli.ok("registry", "add", "public", registries["public"], "--priority", "10")
    cli.ok("registry", "add", "ours", registries["ours"], "--priority", "20")
    plan = cli.ok("install", "fresh", "-s", "--json").json["plan"]
    assert [Path(p["registry"]).name for p in plan["packs"]] == ["ours"]
    cli.ok("registry", "priority", "public", "30")
    plan = cli.ok("install", "fresh", "-s", "--json").json["plan"]
    assert [Path(p["registry"]).name for p in plan["packs"]] == ["public"]


def test_nobody_takes_over_a_bundled_name_unless_told(cli: Cli, registries: Registries) -> None:
    registries.publish("public", "medical", "99.0.0")
    cli.ok("registry", "add", "public", registries["public"])
    assert '"version": "0.1.0"' in cli.ok("show", "medical", "--json").out
    cli.ok("registry", "priority", "bundled", "0")
    assert '"version": "99.0.0"' in cli.ok("show", "medical", "--json").out


@pytest.fixture
def far(cli: Cli, registries: Registries) -> Iterator[Static]:
    """`ours` is a server of high priority that has `internal`; `public` is a folder with it too."""
    registries.publish("ours", "internal")
    registries.publish("public", "internal", "99.0.0")
    with serve(registries["ours"]) as site:
        cli.ok("registry", "add", "ours", site.url, "--priority", "200")
        cli.ok("registry", "add", "public", registries["public"])
        shutil.rmtree(cli.home / "cache")
        yield site


def test_a_server_that_is_down_gives_no_name_away(cli: Cli, far: Static) -> None:
    far.down = True
    for arguments in (("install", "internal", "--yes"), ("show", "internal")):
        result = cli(*arguments)
        assert result.code == 6
        assert far.url in result.err


def test_offline_gives_no_name_away(cli: Cli, far: Static) -> None:
    result = cli("--offline", "install", "internal", "--yes")
    assert result.code == 6
    assert "nothing of the registry" in result.err


def test_a_server_that_is_down_gives_no_name_away_that_is_newer_than_the_cache(
    cli: Cli, far: Static, registries: Registries, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok("registry", "refresh")
    cli.ok("show", "internal")
    registries.publish("ours", "fresh")
    registries.publish("public", "fresh", "99.0.0")
    monkeypatch.setattr(remote, "FRESH_SECONDS", 0.0)
    far.down = True
    # the second time, the server is not even asked
    for _ in range(2):
        result = cli("install", "fresh", "--yes")
        assert result.code == 6
        assert "`fresh` is not in what is cached of ours, which comes before public" in result.err
    # the person may know better; and what the cache knows is still to be had
    cli.ok("install", "fresh", "-s", "--registry", "public")
    assert '"version": "1.0.0"' in cli.ok("show", "internal", "--json").out


def test_a_wrong_token_gives_no_name_away(cli: Cli, far: Static) -> None:
    far.token = "secret"
    assert cli("install", "internal", "--yes").code == 7


def test_a_damaged_index_gives_no_name_away(cli: Cli, far: Static, registries: Registries) -> None:
    from registry_index.summarising import rebuild
    from registry_index.writing import writing

    index = registries["ours"] / "index" / "in" / "te" / "internal"
    index.write_bytes(b"{broken")
    with writing(registries["ours"]) as opened:
        rebuild(opened)
    result = cli("install", "internal", "--yes")
    assert result.code == 5
    assert "internal" in result.err
    # other names are not hurt
    assert cli("show", "unheard-of").code == 3


def test_full_upgrade_replaces_nothing_by_a_pack_of_another_registry(
    cli: Cli, two: Registries
) -> None:
    two.publish("public", "evil", replaces={"internal": "*"})
    cli.ok("full-upgrade", "--yes")
    assert cli.installed() == {"internal": "1.0.0"}
    # its own registry may, and the person may
    plan = cli.ok("install", "evil", "-s", "--json").json["plan"]
    actions = {(p["name"], p["action"]) for p in plan["packs"]}
    assert actions == {("evil", "install"), ("internal", "remove")}
    two.publish("ours", "newer-internal", replaces={"internal": "*"})
    cli.ok("full-upgrade", "--yes")
    assert cli.installed() == {"newer-internal": "1.0.0"}


def test_another_registrys_pack_does_not_stand_in_for_one_that_is_deleted(
    cli: Cli, two: Registries
) -> None:
    two.publish("ours", "wants-it", requires={"internal": "*"})
    two.publish("public", "evil", provides=("internal",))
    cli.ok("remove", "internal", "--yes")
    (two["ours"] / "index" / "in" / "te" / "internal").unlink()
    result = cli("install", "wants-it", "--yes")
    assert result.code in (3, 4)
    assert cli.installed() == {}
    # unless the person asks for it
    cli.ok("install", "wants-it", "evil", "--yes")
    assert cli.installed() == {"wants-it": "1.0.0", "evil": "1.0.0"}


def test_a_name_that_is_nobodys_own_is_open_to_all(cli: Cli, two: Registries) -> None:
    two.publish("ours", "wants-it", requires={"terms": "*"})
    two.publish("public", "some-terms", provides=("terms",))
    cli.ok("install", "wants-it", "--yes")
    assert sources(cli) == {"internal": "ours", "some-terms": "public", "wants-it": "ours"}


def test_a_damaged_list_of_origins_is_an_error(cli: Cli, two: Registries) -> None:
    (cli.home / "origins.json").write_text(json.dumps({"format": 1, "packs": {"internal": 3}}))
    result = cli("install", "internal@99", "--yes")
    assert result.code == 5
    assert "origins.json" in result.err
