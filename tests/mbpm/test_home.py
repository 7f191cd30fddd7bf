"""The files that say what is installed: whatever they hold, a clear answer, and nothing is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbpm.home import Home
from specs.errors import IntegrityError, MbpmError
from specs.generation import Generation
from tests.support.cli import Cli

Publish = Callable[..., None]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.fixture
def three(cli: Cli, registry: Path, publish: Publish) -> Cli:
    """Generation 1 has alpha 1, generation 2 is held, generation 3 has nothing."""
    publish("alpha")
    cli.ok("install", "alpha", "--registry", registry, "--yes")
    cli.ok("hold", "alpha")
    cli.ok("remove", "alpha", "--yes")
    return cli


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home of two generations and nothing else."""
    home = Home(tmp_path_factory.mktemp("home"))
    home.generation_path(1).parent.mkdir()
    for number in (1, 2):
        generation = Generation(number=number, created="2026-01-01T00:00:00Z", command="mbpm")
        home.generation_path(number).write_bytes(generation.canonical())
    home.pointer.write_text("2\n")
    return home


@given(raw=st.binary(max_size=20) | st.from_regex(rb"\s*[0-9]{1,20}\s*", fullmatch=True))
@settings(max_examples=300)
def test_any_bytes_as_the_pointer(written: Home, raw: bytes) -> None:
    written.pointer.write_bytes(raw)
    text = raw.strip()
    try:
        found = written.current()
    except IntegrityError as error:
        assert str(written.path) in error.message
        assert error.hint is not None
        assert not (text.isdigit() and int(text) in (0, 1, 2) and len(text) < 16)
    else:
        assert found.number == int(text)


@given(raw=st.binary(max_size=60))
@settings(max_examples=200)
def test_any_bytes_as_a_generation(written: Home, raw: bytes) -> None:
    written.pointer.write_text("2\n")
    written.generation_path(2).write_bytes(raw)
    with pytest.raises(IntegrityError, match=str(written.generation_path(2))):
        written.current()
    assert written.generation(1).number == 1
    assert written.last_readable() == 1


@given(data=st.data())
@settings(max_examples=200)
def test_any_value_in_a_generation(written: Home, data: st.DataObject) -> None:
    written.pointer.write_text("2\n")
    record: dict[str, Any] = {
        "name": "alpha",
        "version": "1.0.0",
        "manifest": "a" * 64,
        "base": "tiny",
        "registry": "bundled",
    }
    value: dict[str, Any] = {
        "format": 1,
        "number": 2,
        "created": "",
        "command": "",
        "packs": [dict(record)],
        "bases": [],
    }
    place = data.draw(st.sampled_from([value, value["packs"][0]]))
    key = data.draw(st.sampled_from(sorted(place)) | st.text(max_size=8))
    place[key] = data.draw(JSON | st.just([record, record]))
    written.generation_path(2).write_text(json.dumps(value))
    try:
        found = written.current()
    except MbpmError as error:
        assert str(written.generation_path(2)) in error.message
    else:
        assert found.number == 2
        assert Generation.parse(found.canonical(), "again") == found


def test_same_pack_twice(written: Home) -> None:
    pack = {"name": "alpha", "version": "1.0.0", "manifest": "a" * 64, "base": "b", "registry": "r"}
    for key in ("packs", "bases"):
        value = {"number": 2, "created": "", "command": "", "packs": [], "bases": []}
        base = {"name": "alpha", "fingerprint": "a" * 64, "card": "b" * 64}
        value[key] = [pack if key == "packs" else base] * 2
        written.generation_path(2).write_text(json.dumps(value))
        written.pointer.write_text("2\n")
        with pytest.raises(IntegrityError, match="`alpha` stands twice"):
            written.current()


def test_generation_under_another_number(three: Cli) -> None:
    folder = three.home / "generations"
    shutil.copy(folder / "1.json", folder / "3.json")
    result = three("list")
    assert result.code == 5
    assert f"{folder / '3.json'}: says that it is generation 1" in result.err
    three.ok("repair", "--yes")
    assert three.installed() == {"alpha": "1.0.0"}
    assert json.loads((folder / "2.json").read_bytes())["number"] == 2


def test_lost_pointer_is_no_empty_home(three: Cli, registry: Path) -> None:
    three.ok("undo", "--yes")
    before = {f for f in three.home.rglob("*") if f.is_file()}
    (three.home / "current").unlink()
    for words in (["list"], ["gc", "--yes"], ["install", "alpha", "--registry", registry, "--yes"]):
        result = three(*words)
        assert result.code == 5
        assert f"{three.home / 'current'}: is missing, and generations are there" in result.err
        assert "`mbpm repair`" in result.err
    assert {f for f in three.home.rglob("*") if f.is_file()} >= before - {three.home / "current"}
    three.ok("repair", "--yes")
    assert three.installed() == {"alpha": "1.0.0"}
    three.ok("verify")


def test_lost_pointer_of_another_profile_frees_nothing(three: Cli, registry: Path) -> None:
    work = ("--profile", "work")
    three.ok(*work, "install", "alpha", "--registry", registry, "--yes")
    (three.home / "profiles" / "work" / "current").unlink()
    assert three("gc", "--yes").code == 5
    three.ok(*work, "repair", "--yes")
    three.ok(*work, "verify")


@pytest.mark.parametrize("place", ["current", "generations/3.json"])
def test_folder_in_place_of_a_file(three: Cli, place: str) -> None:
    (three.home / place).unlink()
    (three.home / place).mkdir()
    result = three("list")
    assert result.code == 5
    assert str(three.home / place) in result.err


def test_generations_that_are_a_file(three: Cli) -> None:
    shutil.rmtree(three.home / "generations")
    (three.home / "generations").write_text("")
    result = three("list")
    assert result.code == 5
    assert "generations/3.json: is missing" in result.err
