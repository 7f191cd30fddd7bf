"""JSON as documents have it: one way to write it, and a reading that trusts nothing."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from specs.errors import IntegrityError

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""The largest JSON document any reader accepts."""


def canonical_json(value: object) -> bytes:
    """Sorted keys, no insignificant space, UTF-8, no NaN, one newline at the end."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode() + b"\n"


def load_json(raw: bytes, where: str) -> object:
    """Decode JSON strictly: UTF-8, no duplicate keys, no NaN, bounded size and depth.

    Raises:
        IntegrityError: naming `where` and what is wrong.
    """
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise IntegrityError(f"{where}: is longer than the {MAX_DOCUMENT_BYTES:,} bytes accepted")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(items)
        if len(out) != len(items):
            twice = Counter(k for k, _ in items).most_common(1)[0][0]
            raise ValueError(f"key {twice[:200]!r} stands twice")
        return out

    def constant(name: str) -> float:
        raise ValueError(f"{name} is not a JSON number")

    def finite(text: str) -> float:
        value = float(text)
        if math.isinf(value):
            raise ValueError(f"{text[:50]} is too large a number")
        return value

    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_constant=constant,
            parse_float=finite,
        )
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{where}: is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise IntegrityError(
            f"{where}: is not JSON ({error.msg}, line {error.lineno} column {error.colno})"
        ) from None
    except RecursionError:
        raise IntegrityError(f"{where}: is nested too deeply") from None
    except ValueError as error:
        raise IntegrityError(f"{where}: {error}") from None
