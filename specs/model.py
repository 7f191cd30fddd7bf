"""What all contract models share: strict reading, canonical writing, errors in words."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from specs.errors import IntegrityError, MbpmError

T = TypeVar("T", bound="Contract")

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""The largest JSON document any reader accepts."""


class Contract(BaseModel):
    """A frozen record with a schema; unknown keys are errors, types are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    _late: ClassVar[tuple[str, ...]] = ()
    """Fields younger than the format: written only where they say something, so that documents
    without them keep their digest, and stay readable to an older mbpm."""

    @classmethod
    def parse(cls: type[T], raw: bytes, where: str) -> T:
        """Read one JSON document.

        Args:
            raw: UTF-8 JSON.
            where: what to call the document in an error (a path, "index line 3 of …").

        Raises:
            IntegrityError: when it is too large, not JSON, has duplicate or unknown keys, a wrong
                type, or a `format` this program does not know.
        """
        return cls.from_object(load_json(raw, where), where)

    @classmethod
    def read(cls: type[T], file: Path) -> T:
        """`parse` what a file holds, without reading more of it than is accepted."""
        with file.open("rb") as stream:
            return cls.parse(stream.read(MAX_DOCUMENT_BYTES + 1), str(file))

    @classmethod
    def from_object(cls: type[T], value: object, where: str) -> T:
        """Validate a value already decoded from JSON or TOML; raises as `parse` does."""
        check_format(value, cls, where)
        try:
            # Through JSON mode, where a list may stand for a tuple and nothing else is coerced.
            return cls.model_validate_json(json.dumps(value))
        except ValidationError as error:
            raise IntegrityError(f"{where}: {describe(error)}") from None
        except (TypeError, ValueError, RecursionError):
            raise IntegrityError(f"{where}: holds a value JSON cannot express") from None

    @classmethod
    def read_toml(cls: type[T], file: Path) -> T:
        """`parse_toml` what a file holds, without reading more of it than is accepted."""
        with file.open("rb") as stream:
            return cls.parse_toml(stream.read(MAX_DOCUMENT_BYTES + 1), str(file))

    @classmethod
    def parse_toml(cls: type[T], raw: bytes, where: str) -> T:
        """Read one TOML document; `where` is what to call it in an error.

        Raises:
            IntegrityError: it is too large, not UTF-8, not TOML, or not what is expected.
        """
        import tomli

        if len(raw) > MAX_DOCUMENT_BYTES:
            raise IntegrityError(f"{where}: is larger than {MAX_DOCUMENT_BYTES:,} bytes")
        try:
            value = tomli.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise IntegrityError(f"{where}: is not UTF-8 (byte {error.start})") from None
        except (ValueError, RecursionError) as error:
            # a number of thousands of digits is a ValueError of Python, not of tomli
            raise IntegrityError(f"{where}: is not TOML ({error})") from None
        return cls.from_object(value, where)

    def canonical(self) -> bytes:
        """This record as canonical JSON: sorted keys, no spaces, UTF-8, one trailing newline."""
        value = self.model_dump(mode="json", exclude_none=True, by_alias=True)
        for name in self._late:
            if not value.get(name):
                value.pop(name, None)
        return canonical_json(value)

    def digest(self) -> str:
        """SHA-256 of `canonical()`, in hexadecimal."""
        return hashlib.sha256(self.canonical()).hexdigest()


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


def check_format(value: object, cls: type[Contract], where: str) -> None:
    """Refuse a newer `format` by name before anything else is looked at.

    Raises:
        MbpmError: a newer one; IntegrityError where it is not a format at all.
    """
    field = cls.model_fields.get("format")
    if field is None or not isinstance(value, dict):
        return
    found = value.get("format", 1)
    # `True` and `1.0` equal 1 in Python, so the field itself would let them pass
    if type(found) is not int or found < 1:
        raise IntegrityError(f"{where}: `format` must be a positive integer")
    if found > 1:
        raise MbpmError(
            f"{where}: has format {found}, and this version of mbpm reads format 1",
            hint="upgrade mbpm: `pip install --upgrade mbpm`",
        )


def describe(error: ValidationError) -> str:
    """The first few problems of a pydantic error as one line: field, what is wrong, what it got."""
    words = []
    for item in error.errors()[:3]:
        field = ".".join(str(p) for p in item["loc"]) or "(document)"
        if item["type"] == "extra_forbidden":
            words.append(f"unknown key `{field}`")
        elif item["type"] == "missing":
            words.append(f"`{field}` is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            words.append(f"`{field}`: {message[0].lower()}{message[1:]}")
    more = len(error.errors()) - 3
    return "; ".join(words) + (f"; and {more} more" if more > 0 else "")
