"""Reading a source's JSON with its mistakes named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from specs.errors import IntegrityError
from trainer.data.encoding import decode


def array(raw: bytes, what: str) -> list[Mapping[str, Any]]:
    """A JSON array of objects.

    Raises:
        IntegrityError: it is something else.
    """
    try:
        value = json.loads(decode(raw, what))
    except (json.JSONDecodeError, RecursionError) as error:
        raise IntegrityError(f"{what}: is not JSON ({error})") from None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise IntegrityError(f"{what}: expected an array of objects")
    return value


def lines(raw: bytes, what: str) -> Iterator[Mapping[str, Any]]:
    """JSON-lines of objects.

    Raises:
        IntegrityError: a line is something else.
    """
    for number, line in enumerate(decode(raw, what).splitlines(), 1):
        if line.strip():
            try:
                value = json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                value = None
            if not isinstance(value, dict):
                raise IntegrityError(f"{what}: line {number}: expected a JSON object")
            yield value


def text(row: Mapping[str, Any], key: str, what: str) -> str:
    """A field that must be text.

    Raises:
        IntegrityError: it is not.
    """
    value = row.get(key)
    if not isinstance(value, str):
        raise IntegrityError(f"{what}: `{key}`: expected text in every row")
    return value
