"""What all contract models share: strict reading, canonical writing, errors in words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from specs.errors import IntegrityError, MbpmError
from specs.json_text import MAX_DOCUMENT_BYTES as MAX_DOCUMENT_BYTES
from specs.json_text import canonical_json as canonical_json
from specs.json_text import load_json as load_json

T = TypeVar("T", bound="Contract")


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
