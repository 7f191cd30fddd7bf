"""Whether a context fits, told alike by every engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.engine import Cache
from specs.errors import DoesNotFitError

if TYPE_CHECKING:
    from specs.stored import Card


def check_context(card: Card, longest: int, capacity: int) -> None:
    """Raises:
    DoesNotFitError: the base reads at most `longest` tokens, and `capacity` is more.
    """
    if capacity > longest:
        raise DoesNotFitError(
            f"a context of {capacity:,} tokens was asked for, and {card.name} reads at "
            f"most {longest:,}",
            hint=f"`--context {longest}`",
        )


def no_memory(card: Card, capacity: int) -> DoesNotFitError:
    """What to raise where keys and values of `capacity` tokens cannot be allocated."""
    size = capacity * card.kv_bytes_per_token
    return DoesNotFitError(
        f"no memory for a context of {capacity:,} tokens ({size:,} bytes)",
        hint="a smaller `--context` needs less",
    )


def check_room(cache: Cache, tokens: int) -> None:
    """Raises:
    ValueError: there are no tokens.
    DoesNotFitError: `cache` has no room for so many more tokens.
    """
    if tokens < 1:
        raise ValueError("there are no tokens to append")
    if cache.length + tokens > cache.capacity:
        raise DoesNotFitError(
            f"{cache.length + tokens:,} tokens do not fit a context of {cache.capacity:,}",
            hint="a larger `--context` holds more",
        )


def check_layer(layer: int | None, layers: int) -> None:
    """Raises:
    ValueError: hidden states of a layer are wanted that is not there.
    """
    if layer is not None and not 0 <= layer < layers:
        raise ValueError(f"there is no layer {layer} (there are {layers})")
