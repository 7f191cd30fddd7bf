"""Recipes: everything a pack is trained from, as one committed file.

A recipe names its data by package, version and digest, the converter that makes examples of it,
the split and the hyper-parameters, so that anyone can make the pack again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from specs.blobs import Blob, WheelMember, WheelSource
from specs.described import Described
from specs.errors import NotFoundError
from specs.manifest import DataSource
from specs.model import Contract
from specs.names import Name, Sha256
from trainer.config import TrainingConfig
from trainer.data.converters import (
    articles,
    codeio,
    hpo,
    licences,
    medmcqa,
    privacyqa,
    worked,
)
from trainer.data.example import Example
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
    """Data out of one wheel: `members`, concatenated in order, are the blob described here."""

    package: str
    package_version: str
    members: Annotated[tuple[str, ...], Field(min_length=1)]
    size: Annotated[int, Field(ge=1, le=1 << 30)]
    sha256: Sha256
    chunks: tuple[Sha256, ...]
    """As in a manifest: SHA-256 of every 4 MiB piece."""

    @model_validator(mode="after")
    def _describes_a_blob(self) -> RecipeSource:
        self.blob  # noqa: B018 (its own checks are what is wanted)
        return self

    @property
    def blob(self) -> Blob:
        """What the bytes must be."""
        path = f"{self.package}-{self.package_version}"
        return Blob(path=path, size=self.size, sha256=self.sha256, chunks=self.chunks)

    @property
    def wheel(self) -> WheelSource:
        """Where the bytes come from."""
        return WheelSource(
            parts=tuple(
                WheelMember(package=self.package, version=self.package_version, member=member)
                for member in self.members
            )
        )

    @property
    def record(self) -> DataSource:
        """What the manifest says of it."""
        place = f"from the wheel {self.package}=={self.package_version}"
        return DataSource(
            name=self.name,
            version=self.version,
            sha256=self.sha256,
            license=self.license,
            note=f"{self.note} ({place})" if self.note else place,
        )


class HpoSource(RecipeSource):
    """Data read by `trainer.data.converters.hpo`."""

    converter: Literal["hpo"]
    options: hpo.HpoOptions

    def examples(self, raw: bytes, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        return hpo.convert(raw, self.options, seed)


class MedmcqaSource(RecipeSource):
    """Data read by `trainer.data.converters.medmcqa`."""

    converter: Literal["medmcqa"]
    options: medmcqa.MedmcqaOptions

    def examples(self, raw: bytes, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        return medmcqa.convert(raw, self.options, seed)


class PrivacyQaSource(RecipeSource):
    """Data read by `trainer.data.converters.privacyqa`."""

    converter: Literal["privacyqa"]
    options: privacyqa.PrivacyQaOptions

    def examples(self, raw: bytes, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        return privacyqa.convert(raw, self.options, seed)


class LicencesSource(RecipeSource):
    """Data read by `trainer.data.converters.licences`."""

    converter: Literal["licences"]
    options: licences.LicencesOptions

    def examples(self, raw: bytes, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        return licences.convert(raw, self.options, seed)


class ArticlesSource(RecipeSource):
    """Data read by `trainer.data.converters.articles`."""

    converter: Literal["articles"]
    options: articles.ArticlesOptions

    def examples(self, raw: bytes, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        return articles.convert(raw, self.options, seed)


class CodeIoSource(RecipeSource):
    """Data read by `trainer.data.converters.codeio`."""

    converter: Literal["codeio"]
    options: codeio.CodeIoOptions

    def examples(self, raw: bytes, seed: int) -> list[Example]:
        """Examples made of the source's bytes."""
        return codeio.convert(raw, self.options, seed)


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

    def examples(self, raw: bytes, seed: int) -> list[Example]:
        """Examples made by rule; there are no bytes to read."""
        return worked.generate(self.options, seed)


AnyRecipeSource = Annotated[
    HpoSource
    | MedmcqaSource
    | PrivacyQaSource
    | LicencesSource
    | ArticlesSource
    | CodeIoSource
    | WorkedSource,
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


def recipe_data(recipe: Recipe, fetch: Fetch) -> Split:
    """Fetch, convert and split a recipe's data: a function of the recipe alone.

    Raises:
        IntegrityError: the bytes are not what the recipe's converter reads.
        UsageError: they give too little data.
    """
    examples: list[Example] = []
    for source in recipe.sources:
        raw = fetch(source.blob).read_bytes() if isinstance(source, RecipeSource) else b""
        examples.extend(source.examples(raw, recipe.seed))
    return split_by_group(examples, fraction=recipe.split.held_out, seed=recipe.seed)
