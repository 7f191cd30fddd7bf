"""A recipe's data, brought by the same fetch-and-verify code as packs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.fetch import Wanted, obtain_all
from trainer.recipe import Recipe, recipe_data

if TYPE_CHECKING:
    from mbpm.state import State
    from trainer.data.split import Split


def fetch_sources(state: State, recipe: Recipe, folder: Path) -> None:
    """Fetch a recipe's sources into the store, those that are not there.

    Paths in the recipe are relative to `folder`.

    Raises:
        IntegrityError, NetworkError, NotFoundError: no source gave the right bytes.
    """
    wanted = []
    for source in recipe.fetched:
        what = f"data {source.blob.path}"
        wanted.append(Wanted(source.blob, [source.place], what, what, folder))
    obtain_all(state.home.store, wanted, state.network, state.out)


def fetch_data(state: State, recipe: Recipe, folder: Path) -> Split:
    """Fetch a recipe's sources, unless they are there, and make its examples.

    Raises:
        IntegrityError, NetworkError, NotFoundError: no source gave the right bytes.
        UsageError: they give too little data.
    """
    fetch_sources(state, recipe, folder)
    store = state.home.store
    return recipe_data(recipe, lambda blob: store.blob_path(blob.sha256))
