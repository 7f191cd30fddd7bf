"""`mbpm recipe`: what packs can be made again from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbpm.options import Sources

if TYPE_CHECKING:
    from mbpm.state import State

app = typer.Typer(
    add_completion=False,
    help="List recipes, show what one is made of, write one. `mbpm train --recipe NAME` makes the "
    "pack.",
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
            out.line(f"  from       {source.place} ({size(source.size)})")
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


@app.command("new")
def new(
    ctx: typer.Context,
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="What the pack is about")],
    sources: Sources,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="[default: ./DOMAIN.toml]"),
    ] = None,
    licence: Annotated[
        str, typer.Option("--license", metavar="SPDX", help="Licence of the pack, and of data")
    ] = "LicenseRef-unspecified",
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="Base to train on [default: the installed]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, and of training")] = 0,
) -> None:
    """Write a recipe for data of your own: where each file is, its digest and its licence.

    Whoever has the recipe can make the pack again, or find out that the data has changed.
    Hyper-parameters go under `[training]`, as `mbpm recipe show` names them.

    $ mbpm recipe new legal rulings/ hf:someone/lease --license CC-BY-4.0
    $ mbpm train --recipe ./legal.toml
    """
    import tomli_w

    from mbpm.training_data import opened, recipe_source
    from specs.errors import UsageError
    from trainer.recipe import Recipe

    state: State = ctx.obj
    target = output or Path(f"{domain}.toml")
    if target.exists():
        raise UsageError(f"{target}: is there already", hint="`--output FILE` names another")
    described = []
    for source in sources:
        with opened(state, [source], licence) as found:
            (record,) = found.sources
            described += [recipe_source(f, record, target.absolute().parent) for f in found.files]
    value = {
        "format": 1,
        "name": domain,
        "version": "0.1.0",
        "domain": domain,
        "description": f"A pack about {domain}",
        "license": licence,
        "base": base or state.home.default_base().name,
        "seed": seed,
        "sources": described,
        "training": {"seed": seed},
    }
    recipe = Recipe.from_object(value, str(target))
    target.write_text(tomli_w.dumps(value, multiline_strings=False), encoding="utf-8")
    state.out.line(f"{target}: {len(described):,} sources, digest {recipe.digest()}")
    state.out.result({"file": str(target), "digest": recipe.digest(), "sources": len(described)})
    # without a separator it would be taken for a name
    place = target if len(target.parts) > 1 else f"./{target}"
    state.out.hint(f"`mbpm train --recipe {place}`")
