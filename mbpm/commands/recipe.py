"""`mbpm recipe`: what packs can be made again from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mbpm.state import State

app = typer.Typer(
    add_completion=False,
    help="List recipes, or show what one is made of. `mbpm train --recipe NAME` makes the pack.",
)


@app.command("list")
def list_recipes(ctx: typer.Context) -> None:
    """List the recipes that come with mbpm.

    $ mbpm recipe list
    """
    from trainer.recipe import load_recipe, recipe_names

    state: State = ctx.obj
    recipes = [load_recipe(name) for name in recipe_names()]
    state.out.table(
        ["NAME", "VERSION", "BASE", "LICENCE", "DESCRIPTION"],
        [[r.name, r.version, r.base, r.license, r.description] for r in recipes],
    )
    state.out.result(
        {
            "recipes": [
                {
                    "name": r.name,
                    "version": r.version,
                    "base": r.base,
                    "license": r.license,
                    "description": r.description,
                    "digest": r.digest(),
                }
                for r in recipes
            ]
        }
    )


@app.command("show")
def show(
    ctx: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Its name, or its file")],
) -> None:
    """Show a recipe's sources, their licences, its split and its hyper-parameters.

    $ mbpm recipe show legal
    $ mbpm recipe show ./mine.toml --json
    """
    from mbpm.output import size
    from trainer.recipe import RecipeSource, load_recipe

    state: State = ctx.obj
    found = load_recipe(recipe)
    out = state.out
    out.line(f"{found.name} {found.version}: {found.description}")
    out.line()
    for label, value in (
        ("domain", found.domain),
        ("licence", found.license),
        ("base", found.base),
        ("seed", str(found.seed)),
        ("held out", f"{found.split.held_out:.0%} of the groups"),
        ("digest", found.digest()),
    ):
        out.line(f"{label:<9}  {value}")
    for source in found.sources:
        out.line()
        out.line(f"{source.name} {source.version}".rstrip())
        out.line(f"  licence    {source.license}")
        if isinstance(source, RecipeSource):
            out.line(f"  from       {source.wheel} ({size(source.size)})")
            out.line(f"  sha256     {source.sha256}")
        options = source.options.model_dump()
        told = ", ".join(f"{key} {value}" for key, value in options.items())
        out.line(f"  converter  {source.converter}, {told}")
        if source.note:
            out.line(f"  note       {source.note}")
    out.line()
    out.line("training")
    for key, value in found.training.model_dump(exclude_none=True).items():
        out.line(f"  {key.replace('_', ' '):<20} {value}")
    out.result({"recipe": found.model_dump(mode="json"), "digest": found.digest()})
