"""`mbpm recipe list` and `show`."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.hub import COMMIT, DatasetHub, serve_hub
from trainer.recipe import load_recipe


def test_recipes_are_listed(cli: Cli) -> None:
    lines = cli.ok("recipe", "list").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "code",
        "creative",
        "legal",
        "medical",
        "reasoning",
    ]
    found = cli.ok("recipe", "list", "--json").json["recipes"]
    assert found[2]["digest"] == load_recipe("legal").digest()


def test_a_recipe_shows_where_everything_is_from(cli: Cli) -> None:
    shown = cli.ok("recipe", "show", "legal").out
    recipe = load_recipe("legal")
    for source in recipe.fetched:
        assert source.sha256 in shown
        assert str(source.place) in shown
        assert f"licence    {source.license}" in shown
    assert recipe.digest() in shown
    assert "Worked problems" in cli.ok("recipe", "show", "reasoning").out
    assert cli.ok("recipe", "show", "code", "--json").json["recipe"]["base"] == "smollm2-135m"


def test_an_unknown_recipe(cli: Cli) -> None:
    result = cli("recipe", "show", "cooking")
    assert result.code == 3
    assert "`legal`" in result.err


LEGAL = Path(__file__).parents[1] / "data" / "legal-mini.jsonl"


def new(cli: Cli, folder: Path, *sources: object) -> Path:
    file = folder / "lease.toml"
    cli.ok("recipe", "new", "lease", *sources, "-o", file, "--license", "CC0-1.0", "--base", "tiny")
    return file


def test_a_recipe_of_own_files_gives_the_same_data_elsewhere(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "law"
    folder.mkdir()
    (folder / "data.jsonl").write_bytes(LEGAL.read_bytes())
    file = new(cli, folder, folder)
    first = cli.ok("data", "fetch", file, "--json").json
    assert first["train"] + first["held_out"] == 60
    moved = folder.rename(tmp_path / "moved") / file.name
    assert cli.ok("data", "fetch", moved, "--json").json == first
    assert Cli(tmp_path / "other").ok("data", "fetch", moved, "--json").json == first
    data = moved.parent / "data.jsonl"
    data.write_bytes(data.read_bytes().replace(b"licence", b"license"))
    changed = Cli(tmp_path / "third")("data", "fetch", moved)
    assert changed.code == 5
    assert "data.jsonl" in changed.err


def test_a_recipe_of_a_data_set_names_its_commit(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with serve_hub(DatasetHub({"data/train.jsonl": LEGAL.read_bytes()})) as hub:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        file = new(cli, tmp_path, "hf:someone/lease")
        assert f'revision = "{COMMIT}"' in file.read_text()
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "no-cache"))
        found = cli.ok("data", "fetch", file, "--json").json
        assert found["train"] + found["held_out"] == 60
        assert found["sources"][0]["license"] == "cc-by-4.0"
        assert f"GET /datasets/someone/lease/resolve/{COMMIT}/data/train.jsonl" in hub.asked
    cli.ok("data", "fetch", file, "--offline")


def test_a_recipe_is_not_written_over_nor_of_standard_input(cli: Cli, tmp_path: Path) -> None:
    file = new(cli, tmp_path, LEGAL)
    again = cli("recipe", "new", "lease", LEGAL, "-o", file, "--base", "tiny")
    assert (again.code, "is there already" in again.err) == (2, True)
    stdin = io.TextIOWrapper(io.BytesIO(LEGAL.read_bytes()))
    result = cli("recipe", "new", "x", "-", "-o", tmp_path / "x", "--base", "tiny", stdin=stdin)
    assert (result.code, "cannot be read again" in result.err) == (2, True)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('path = "legal-mini.jsonl"', "", "expected one of `package`, `hf`, `url` and `path`"),
        ('path = "legal-mini.jsonl"', 'hf = "a/b"', "`hf` needs `revision` and `file`"),
        ('path = "legal-mini.jsonl"', 'package = "a"', "`package` needs `package_version`"),
        ('file = "legal-mini.jsonl"', 'file = "a.exe"', "unknown kind of data `a.exe`"),
    ],
)
def test_a_source_that_is_not_complete(
    cli: Cli, tmp_path: Path, old: str, new: str, expected: str
) -> None:
    data = tmp_path / LEGAL.name
    data.write_bytes(LEGAL.read_bytes())
    file = tmp_path / "lease.toml"
    cli.ok("recipe", "new", "lease", data, "-o", file, "--base", "tiny")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    result = cli("recipe", "show", file)
    assert result.code == 5
    assert expected in result.err
