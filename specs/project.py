"""`mbpm.toml`: which packs a project wants; `mbpm lock` makes exact versions of it."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from specs.model import Contract, canonical_json
from specs.names import Name, check_name
from specs.versions import RequirementText

PROJECT_FILE = "mbpm.toml"
BUNDLED = "bundled"
"""What the registry that comes with mbpm is called everywhere."""
RESERVED_PROFILE = "default"


def is_address(text: str) -> bool:
    """Whether a registry is written as an address or a path, and not as a name."""
    return "/" in text or "\\" in text or text in (".", "..")


def _check_address(text: str) -> str:
    if not is_address(text):
        raise ValueError(
            f"{text!r} is neither an address nor a path (expected `https://…` or `./FOLDER`)"
        )
    if not text.isprintable():
        raise ValueError("an address holds no control characters")
    if "://" in text and not re.match(r"https?://[^/\s]", text):
        raise ValueError(f"{text!r} is not an address (expected `https://…`)")
    if re.match(r"https?://[^/]*@", text):
        raise ValueError("an address holds no user name or password; `mbpm registry` keeps tokens")
    return text


def _check_registry(text: str) -> str:
    return _check_address(text) if is_address(text) else check_name(text)


def _check_alias(name: str) -> str:
    if name == BUNDLED:
        raise ValueError(f"`{BUNDLED}` is the registry that comes with mbpm")
    return check_name(name)


def _check_profile(name: str) -> str:
    if name == RESERVED_PROFILE:
        raise ValueError(
            f"the profile `{RESERVED_PROFILE}` holds what is installed by hand; "
            "a project has one of its own"
        )
    return check_name(name)


Address = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_check_address)]
"""Where a registry is: `https://…`, or a folder, relative to mbpm.toml."""
ProfileName = Annotated[str, AfterValidator(_check_profile)]


def _number_as_text(value: Any) -> Any:
    return str(value) if type(value) in (int, float) else value


Amount = Annotated[
    str,
    BeforeValidator(_number_as_text, json_schema_input_type=str | int | float),
    Field(pattern=r"^\d{1,6}(\.\d{1,6}){0,2}$"),
]


class WantedPack(Contract):
    """A pack the project wants; a mere requirement stands for a table with only `version`."""

    version: RequirementText
    registry: Annotated[
        str | None, Field(max_length=2000), AfterValidator(lambda v: v and _check_registry(v))
    ] = None
    """Where it has to come from: a name of `[registries]` or of this machine, or an address."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"version": value}
        if not isinstance(value, dict):
            raise ValueError(
                'expected a requirement such as "^1.2", or { version = "^1.2", registry = "NAME" }'
            )
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        table = handler(core_schema)
        return {"anyOf": [{"type": "string"}, table]}


class ProjectInfo(Contract):
    """What the project is called and how its packs are chosen."""

    name: Name
    profile: ProfileName | None = None
    """The profile its packs are installed in; else the project's name."""
    base: Name | None = None
    """The base it uses: always installed, and packs for others are not taken."""
    recommends: bool = True
    """Whether packs that others recommend are wanted too."""
    prereleases: bool = False
    """Whether any pre-release will do; else only those that a requirement names."""

    @model_validator(mode="after")
    def _has_profile(self) -> ProjectInfo:
        if self.profile is None and self.name == RESERVED_PROFILE:
            raise ValueError(f"a project called `{RESERVED_PROFILE}` needs a `profile`")
        return self


class Machine(Contract):
    """The least that a machine of the project has; what is left out is asked of this machine."""

    ram: Amount | None = None
    """GiB."""
    vram: Amount | None = None
    """GiB of the GPU."""
    cc: Amount | None = None
    """Compute capability of the GPU."""


class Project(Contract):
    """The content of mbpm.toml."""

    format: Literal[1] = 1
    project: ProjectInfo
    packs: dict[Name, WantedPack] = {}
    registries: dict[Annotated[str, AfterValidator(_check_alias)], Address] = {}
    """Registries the project takes packs from, before those of the machine, in this order."""
    machine: Machine = Machine()

    _settings: ClassVar[tuple[str, ...]] = ("base", "recommends", "prereleases")

    @property
    def profile(self) -> str:
        """The profile its packs are installed in."""
        return self.project.profile or self.project.name

    def wants(self) -> str:
        """SHA-256 of everything that decides which versions fit; a lock records it.

        What has its default is left out, so that settings added later do not make locks outdated.
        """
        settings = self.project.model_dump(mode="json", exclude_defaults=True)
        value: dict[str, object] = {k: v for k, v in settings.items() if k in self._settings}
        value["packs"] = {
            name: wanted.model_dump(mode="json", exclude_defaults=True)
            for name, wanted in self.packs.items()
        }
        if self.registries:
            # their order is their priority
            value["registries"] = [list(item) for item in self.registries.items()]
        if machine := self.machine.model_dump(mode="json", exclude_defaults=True):
            value["machine"] = machine
        return hashlib.sha256(canonical_json(value)).hexdigest()
