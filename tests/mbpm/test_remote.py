"""Registries on web servers, as a user meets them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mbpm.registries import refresh, remote
from registry_index.marking import deprecate, yank
from registry_index.summarising import changing
from registry_index.summary import read_summary
from registry_index.tree import Registry, index_path
from registry_index.writing import writing
from specs.versions import Version
from tests.support.cli import Cli
from tests.support.packs import pack_folder, published, registry_with_base
from tests.support.static import Static, serve

Publish = Callable[..., None]


def test_installs_with_dependencies_and_base(cli: Cli, team: Static) -> None:
    document = cli.ok("install", "beta", "--yes", "--json").json
    assert {p["registry"] for p in document["plan"]["packs"]} == {team.url}
    assert cli.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}
    assert cli.bases() == ["tiny"]
    cli.ok("verify")


def test_add_says_what_is_there(cli: Cli, site: Static, publish: Publish) -> None:
    publish("alpha")
    result = cli.ok("registry", "add", "team", site.url + "/")
    assert f"added team, {site.url}, with 1 packs" in result.err
    listed = cli.ok("registry", "list", "--json").json["registries"]
    assert [(r["name"], r["priority"], r["packs"]) for r in listed][1] == ("team", 50, 1)
    assert listed[0]["name"] == "bundled"


def test_no_registry_at_the_address(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    with serve(tmp_path / "site") as empty:
        result = cli("registry", "add", "team", empty.url)
    assert result.code == 3
    assert f"no registry at {empty.url}: it has no config.json" in result.err
    assert len(cli.ok("registry", "list", "--json").json["registries"]) == 1


def test_a_page_of_html_is_no_registry(cli: Cli, site: Static) -> None:
    site.changed["/summary/root.json"] = b"<html>Log in to the network</html>"
    result = cli("registry", "add", "team", site.url)
    assert result.code == 5
    assert "summary/root.json: is not JSON" in result.err


def test_nothing_is_asked_again_within_ten_minutes(cli: Cli, team: Static) -> None:
    cli.ok("search", "alpha")
    cli.ok("show", "alpha")
    index = [p for p in team.asked if p.startswith("/index/")]
    assert index == ["/index/al/ph/alpha"]
    assert "/summary/root.json" not in team.asked
    team.forget()
    cli.ok("show", "alpha")
    assert team.asked == []


@pytest.mark.parametrize("etags", [True, False])
def test_refresh_without_a_change_is_one_conditional_request(
    cli: Cli, team: Static, always_stale: None, etags: bool
) -> None:
    team.etags = etags
    cli.ok("registry", "refresh")
    team.forget()
    result = cli.ok("registry", "refresh")
    assert "team: 2 packs, nothing changed" in result.err
    assert team.asked == ["/summary/root.json"]
    assert team.sent == 0


def test_refresh_transfers_only_what_changed(
    cli: Cli, site: Static, publish: Publish, registry: Path
) -> None:
    copies(registry, publish, 300)
    cli.ok("registry", "add", "team", site.url)
    total = cli.ok("registry", "refresh", "--json").json["refreshed"][0]["total_bytes"]
    site.forget()
    yank(registry, "pack-7", Version("1.0.0"))
    done = cli.ok("registry", "refresh", "--json").json["refreshed"][0]
    assert done["changed_pages"] == 1
    assert site.sent == done["fetched_bytes"] < total / 2
    assert [p for p in site.asked if p.startswith("/index/")] == []


def copies(registry: Path, publish: Publish, count: int) -> None:
    """Many packs fast: the same index line under other names."""
    publish("seed")
    raw = Registry(registry).raw_index("seed")
    names = [f"pack-{number}" for number in range(count)]
    with writing(registry) as opened, changing(opened, *names):
        for name in names:
            file = registry / "index" / index_path(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(raw.replace(b'"name":"seed"', f'"name":"{name}"'.encode()))


def test_a_new_version_is_found_after_ten_minutes(
    cli: Cli, team: Static, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok("install", "alpha", "--yes")
    publish("alpha", "1.1.0")
    assert "everything is up to date" in cli.ok("upgrade", "--yes").err
    monkeypatch.setattr(remote, "FRESH_SECONDS", 0.0)
    cli.ok("upgrade", "--yes")
    assert cli.installed() == {"alpha": "1.1.0"}


def test_an_index_file_newer_than_the_summary_counts_as_far_as_it_was_known(
    cli: Cli, team: Static, publish: Publish
) -> None:
    publish("alpha", "1.1.0")
    # the summary of a minute ago knows one version
    assert "versions   1.0.0\n" in cli.ok("show", "alpha").out


def test_a_yank_since_the_summary_is_asked_for_again(
    cli: Cli, team: Static, registry: Path
) -> None:
    deprecate(registry, "alpha", None, "use omega")
    result = cli.ok("show", "alpha")
    assert "deprecated use omega" in result.out
    assert team.asked.count("/summary/root.json") == 1


def test_an_index_file_that_is_not_the_one_of_the_summary(cli: Cli, team: Static) -> None:
    team.changed["/index/al/ph/alpha"] = b"{}\n"
    result = cli("show", "alpha")
    assert result.code == 5
    assert "is not what the registry's summary says" in result.err


def test_server_down_goes_on_from_the_cache_with_one_warning(
    cli: Cli, team: Static, always_stale: None
) -> None:
    cli.ok("show", "beta")
    team.down = True
    result = cli.ok("search", "beta", "--json")
    assert [p["name"] for p in result.json["packs"]] == ["beta"]
    assert result.err.count("warning: ") == 1
    assert "going on with what was cached 0 minutes ago" in result.err


def test_offline_touches_nothing_and_finds_what_is_cached(
    cli: Cli, team: Static, always_stale: None
) -> None:
    cli.ok("install", "beta", "--yes")
    cli.ok("show", "alpha")
    cli.ok("remove", "alpha", "beta", "--yes")
    team.forget()
    found = cli.ok("--offline", "search", "aerzte", "--json").json["packs"]
    assert found == []
    found = cli.ok("--offline", "search", "arzte", "--json").json["packs"]
    assert [p["name"] for p in found] == ["alpha"]
    assert "alpha 1.0.0" in cli.ok("--offline", "show", "alpha").out
    cli.ok("--offline", "install", "beta", "--yes")
    assert cli.installed() == {"alpha": "1.0.0", "beta": "1.0.0"}
    assert team.asked == []


def test_offline_says_what_is_missing(cli: Cli, team: Static, site: Static) -> None:
    result = cli("--offline", "show", "alpha")
    assert result.code == 6
    assert f"the index file of `alpha` is not cached of {site.url}" in result.err
    shutil.rmtree(cli.home / "cache")
    result = cli("--offline", "show", "alpha")
    assert result.code == 6
    assert f"nothing of the registry {site.url} is cached" in result.err
    assert "hint: run `mbpm registry refresh`" in result.err
    # the bundled registry comes first, and needs nobody
    assert "medical" in cli.ok("--offline", "show", "medical").out


def test_a_server_down_from_the_start_is_an_error_where_it_may_have_the_name(
    cli: Cli, team: Static
) -> None:
    shutil.rmtree(cli.home / "cache")
    team.down = True
    result = cli("show", "alpha")
    assert result.code == 6
    result = cli.ok("search")
    assert "going on without this registry" in result.err


@pytest.mark.parametrize("status", [404, 410, 451])
def test_a_registry_without_summary_knows_exact_names(
    cli: Cli, site: Static, publish: Publish, registry: Path, status: int, always_stale: None
) -> None:
    publish("alpha")
    cli.ok("base", "install", "tiny", "--registry", registry, "--yes")
    shutil.rmtree(registry / "summary")
    site.missing = status
    cli.ok("registry", "add", "team", site.url)
    assert cli("install", "alfa").code == 3
    cli.ok("install", "alpha", "--yes")
    publish("alpha", "1.1.0")
    shutil.rmtree(registry / "summary")
    later = time.time() + 700
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: later)
        cli.ok("upgrade", "--yes")
    assert cli.installed() == {"alpha": "1.1.0"}


def test_a_registry_that_gains_a_summary(
    cli: Cli, site: Static, publish: Publish, registry: Path
) -> None:
    publish("alpha")
    shutil.rmtree(registry / "summary")
    cli.ok("registry", "add", "team", site.url)
    assert "found by their exact name" in cli.ok("registry", "refresh").err
    publish("beta")
    assert "2 packs" in cli.ok("registry", "refresh").err
    assert cli.ok("search", "alpha", "--json").json["total"] == 1


def test_a_cut_first_refresh_goes_on_where_it_stopped(
    cli: Cli, site: Static, publish: Publish, registry: Path
) -> None:
    copies(registry, publish, 300)
    pages = [f for f in (registry / "summary").iterdir() if len(f.name) == 64]
    summary = read_summary(Registry(registry))
    assert summary is not None
    last = registry / "summary" / summary.root.pages[-1][0]
    raw = last.read_bytes()
    last.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refresh, "BATCH", 1)
        assert cli("registry", "add", "team", site.url).code == 3
    last.write_bytes(raw)
    site.forget()
    cli.ok("registry", "add", "team", site.url)
    assert len([p for p in site.asked if p.startswith("/summary/")]) == 2
    assert len(pages) > 3


def test_blobs_come_from_mirrors(
    cli: Cli, site: Static, publish: Publish, registry: Path, tmp_path: Path
) -> None:
    publish("alpha")
    shutil.copytree(registry / "blobs", tmp_path / "mirror" / "blobs")
    with serve(tmp_path / "mirror") as mirror:
        cli.ok("registry", "add", "team", site.url, "--mirror", mirror.url)
        cli.ok("install", "alpha", "--yes")
        # those the person named are asked first, and all came from there
        assert not [p for p in site.asked if p.startswith("/blobs/") and "manifest" in p]
        assert len([p for p in mirror.asked if p.startswith("/blobs/")]) >= 5


def test_a_mirror_that_sends_other_bytes_is_passed_over(
    cli: Cli, site: Static, publish: Publish, registry: Path, tmp_path: Path
) -> None:
    publish("alpha")
    shutil.copytree(registry / "blobs", tmp_path / "mirror" / "blobs")
    for blob in (tmp_path / "mirror" / "blobs").rglob("*"):
        if blob.is_file():
            blob.chmod(0o644)
            blob.write_bytes(bytes(len(blob.read_bytes())))
    with serve(tmp_path / "mirror") as mirror:
        cli.ok("registry", "add", "team", site.url, "--mirror", mirror.url)
        cli.ok("install", "alpha", "--yes")
    cli.ok("verify")


def test_mirrors_of_the_registry_are_tried_after_it(
    cli: Cli, site: Static, publish: Publish, registry: Path, tmp_path: Path
) -> None:
    publish("alpha")
    shutil.move(registry / "blobs", tmp_path / "mirror" / "blobs")
    with serve(tmp_path / "mirror") as mirror:
        config = f'{{"format":1,"name":"team","mirrors":["{mirror.url}/"]}}'
        (registry / "config.json").write_text(config)
        cli.ok("install", "alpha", "--registry", site.url, "--yes")
        assert mirror.asked
    cli.ok("verify")


def test_did_you_mean_from_the_cache(cli: Cli, team: Static) -> None:
    assert "did you mean `alpha`?" in cli("install", "alpah").err
    assert "did you mean `team`?" in cli("registry", "remove", "taem").err


def test_a_server_that_is_down_is_not_asked_by_every_command(
    cli: Cli, team: Static, always_stale: None
) -> None:
    team.down = True
    cli.ok("search")
    team.forget()
    result = cli.ok("search")
    assert team.asked == []
    assert "cannot be reached; going on with what was cached" in result.err
    # unless it is told to
    assert cli("registry", "refresh").code == 6


def test_refreshing_several_goes_on_after_a_failure(
    cli: Cli, team: Static, registry: Path, tmp_path: Path
) -> None:
    with serve(registry) as other:
        cli.ok("registry", "add", "a-first", other.url, "--priority", "60")
    result = cli("registry", "refresh", "--json")
    assert result.code == 6
    assert [r["name"] for r in result.json["refreshed"]] == ["team"]
    assert "error" in result.json


@pytest.mark.parametrize(
    ("path", "content", "code", "said"),
    [
        ("/summary/root.json", b"[" * 100_000, 5, "root.json"),
        ("/summary/root.json", b"{}" + b" " * 5_000_000, 6, "more than"),
        ("/config.json", b'{"format":1,"name":"../x"}', 5, "config.json"),
        ("/config.json", b'{"format":2,"name":"x"}', 1, "has format 2"),
        ("/bases/tiny.json", b"{}", 0, "is not what the summary says"),
    ],
)
def test_a_server_that_sends_something_else(
    cli: Cli, site: Static, publish: Publish, path: str, content: bytes, code: int, said: str
) -> None:
    publish("alpha")
    site.changed[path] = content
    result = cli("registry", "add", "team", site.url)
    assert result.code == code
    assert said in result.err


def test_a_page_that_is_not_its_digest(cli: Cli, site: Static, publish: Publish) -> None:
    publish("alpha")
    summary = read_summary(Registry(site.root))
    assert summary is not None
    digest, size = summary.root.pages[0]
    site.changed[f"/summary/{digest}"] = b"x" * size
    result = cli("registry", "add", "team", site.url)
    assert result.code == 5
    assert f"summary/{digest}: its bytes do not match its name" in result.err
    site.changed[f"/summary/{digest}"] = b"x" * (size + 1)
    assert cli("registry", "add", "team", site.url).code == 6


def test_evals_of_a_remote_pack_that_are_not_their_digest(cli: Cli, team: Static) -> None:
    from specs.manifest import Manifest

    (line,) = Registry(team.root).lines("alpha")
    raw = Registry(team.root).blob_path(line.manifest).read_bytes()
    blob = Manifest.parse(raw, "m").blob("evals.json")
    team.changed[f"/blobs/{blob.sha256[:2]}/{blob.sha256}"] = b"x" * blob.size
    result = cli("show", "alpha")
    assert result.code == 5
    assert "its bytes do not match its digest (evals.json)" in result.err


def test_a_path_on_the_publishers_machine_is_no_source(
    cli: Cli, registry: Path, publish: Publish, tmp_path: Path
) -> None:
    publish("alpha")
    # the card names a file of this very machine, which a stranger's registry must not reach
    with serve(registry) as site:
        result = cli("install", "alpha", "--registry", site.url, "--yes")
    assert result.code == 3
    assert "base-files" not in result.err


def test_a_registry_that_was_taken_out_is_asked_nothing(
    cli: Cli, team: Static, publish: Publish
) -> None:
    cli.ok("install", "alpha", "--yes")
    cli.ok("remove", "alpha", "--yes")
    cli.ok("gc", "--keep", "1", "--yes")
    cli.ok("registry", "remove", "team")
    team.forget()
    result = cli("undo", "--yes")
    assert result.code == 4
    assert f"alpha 1.0.0 cannot be had from {team.url} any more" in result.err
    assert f"`mbpm registry add NAME {team.url}`" in result.err
    assert "--registry" not in result.err, "undo has no such option"
    assert team.asked == []


def test_messages_call_registries_by_their_names(
    cli: Cli, team: Static, registry: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    registry_with_base(shared, tmp_path / "shared-base")
    published(pack_folder(tmp_path / "gamma", "gamma"), shared)
    cli.ok("registry", "add", "share", shared)
    assert (
        "no pack `nothing` in the registries `bundled`, `team`, `share`"
        in cli("show", "nothing").err
    )
    lines = cli.ok("search").out.splitlines()
    at = lines[0].index("FROM")
    origin = {line.split()[0]: line[at:].split()[0] for line in lines[1:]}
    assert origin == {"alpha": "team", "beta": "team", "gamma": "share", "medical": "bundled"}
    found = cli("doctor").out
    assert "registry team" in found and f"{team.url}, answers" in found
    assert "registry share" in found
