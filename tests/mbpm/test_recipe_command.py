"""`mbpm recipe list` and `show`."""

from __future__ import annotations

from tests.support.cli import Cli
from trainer.recipe import load_recipe


def test_recipes_are_listed(cli: Cli) -> None:
    lines = cli.ok("recipe", "list").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["code", "legal", "medical", "reasoning"]
    found = cli.ok("recipe", "list", "--json").json["recipes"]
    assert found[1]["digest"] == load_recipe("legal").digest()


def test_a_recipe_shows_where_everything_is_from(cli: Cli) -> None:
    shown = cli.ok("recipe", "show", "legal").out
    recipe = load_recipe("legal")
    for source in recipe.fetched:
        assert source.sha256 in shown
        assert str(source.wheel) in shown
        assert f"licence    {source.license}" in shown
    assert recipe.digest() in shown
    assert "Worked problems" in cli.ok("recipe", "show", "reasoning").out
    assert cli.ok("recipe", "show", "code", "--json").json["recipe"]["base"] == "smollm2-135m"


def test_an_unknown_recipe(cli: Cli) -> None:
    result = cli("recipe", "show", "cooking")
    assert result.code == 3
    assert "`legal`" in result.err
