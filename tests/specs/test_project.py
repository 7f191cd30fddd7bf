"""`mbpm.toml` as a document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from specs.errors import IntegrityError, MbpmError
from specs.project import Project

HEAD = '[project]\nname = "clinic"\n'


def read(text: str) -> Project:
    return Project.parse_toml(text.encode(), "mbpm.toml")


def test_a_requirement_stands_for_a_table() -> None:
    short = read(HEAD + '[packs]\nlegal = "^1.2"\n')
    long = read(HEAD + '[packs]\nlegal = { version = "^1.2" }\n')
    assert short == long
    assert short.packs["legal"].registry is None


def test_the_profile_is_called_as_the_project() -> None:
    assert read(HEAD).profile == "clinic"
    assert read(HEAD + 'profile = "other"\n').profile == "other"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "`project` is missing"),
        ("[project]\n", "`project.name` is missing"),
        (HEAD + "colour = 1\n", "unknown key `project.colour`"),
        (HEAD + "[dependencies]\n", "unknown key `dependencies`"),
        ("packs = 3\n" + HEAD, "`packs`: input should be an object"),
        (HEAD + "[packs]\nlegal = 3\n", "`packs.legal`: expected a requirement"),
        (HEAD + '[packs]\nlegal = "one"\n', "`packs.legal.version`: 'one' is not a version requ"),
        (HEAD + '[packs]\nlegal = { registry = "team" }\n', "`packs.legal.version` is missing"),
        (HEAD + '[packs]\nlegal = { version = "1", git = "x" }\n', "unknown key `packs.legal.git`"),
        (
            HEAD + '[packs]\nlegal = { version = "1", registry = "A b" }\n',
            "'A b' is not a valid na",
        ),
        (HEAD + '[packs]\n"../x" = "1"\n', "'../x' is not a valid name"),
        (HEAD + '[registries]\nteam = "team"\n', "neither an address nor a path"),
        (HEAD + '[registries]\nteam = "ftp://example.org/x"\n', "is not an address"),
        (HEAD + '[registries]\nteam = "https://"\n', "is not an address"),
        (HEAD + '[registries]\nteam = "./x\\u0007"\n', "no control characters"),
        (HEAD + '[registries]\nteam = "https://me:pw@example.org"\n', "no user name or password"),
        (HEAD + '[registries]\nbundled = "./x"\n', "the registry that comes with mbpm"),
        ('[project]\nname = "default"\n', "a project called `default` needs a `profile`"),
        (HEAD + 'profile = "default"\n', "holds what is installed by hand"),
        (HEAD + '[machine]\nram = "much"\n', "`machine.ram`"),
        (HEAD + "[machine]\nram = -1\n", "`machine.ram`"),
        (HEAD + "since = 2024-01-01\n", "holds a value JSON cannot express"),
        (HEAD + HEAD, "is not TOML"),
        ('[project]\nname = "a"\nname = "b"\n', "is not TOML"),
        ("format = " + "9" * 5000 + "\n", "is not TOML"),
    ],
)
def test_bad_documents(text: str, said: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        read(text)
    assert caught.value.message.startswith("mbpm.toml: ")
    assert said in caught.value.message


def test_not_utf8() -> None:
    with pytest.raises(IntegrityError, match=r"mbpm.toml: is not UTF-8 \(byte 1\)"):
        Project.parse_toml(b"#\xff\n", "mbpm.toml")


def test_a_newer_format() -> None:
    with pytest.raises(MbpmError, match="has format 2, and this version of mbpm reads format 1"):
        read("format = 2\n" + HEAD)


def test_numbers_of_a_machine_may_be_numbers() -> None:
    machine = read(HEAD + '[machine]\nram = 16\nvram = "8"\ncc = 7.5\n').machine
    assert (machine.ram, machine.vram, machine.cc) == ("16", "8", "7.5")


@pytest.mark.parametrize(
    "text",
    [
        HEAD + '[packs]\nlegal = "^1.3"\n',
        HEAD + '[packs]\nlegal = { version = "^1.2", registry = "team" }\n',
        HEAD + '[packs]\nlegal = "^1.2"\nmedical = "^1"\n',
        HEAD + 'base = "tiny"\n[packs]\nlegal = "^1.2"\n',
        HEAD + 'recommends = false\n[packs]\nlegal = "^1.2"\n',
        HEAD + 'prereleases = true\n[packs]\nlegal = "^1.2"\n',
        HEAD + '[packs]\nlegal = "^1.2"\n[registries]\nteam = "./x"\n',
        HEAD + '[packs]\nlegal = "^1.2"\n[machine]\nram = 1\n',
    ],
)
def test_what_changes_the_wants(text: str) -> None:
    assert read(text).wants() != read(HEAD + '[packs]\nlegal = "^1.2"\n').wants()


@pytest.mark.parametrize(
    "text",
    [
        'format = 1\n# words\n[packs]\nlegal = "^1.2"\n[project]\nname = "other"\n',
        HEAD + 'profile = "p"\nrecommends = true\n[packs]\nlegal = { version = "^1.2" }\n',
        HEAD + '[machine]\n[registries]\n[packs]\nlegal = "^1.2"\n',
    ],
)
def test_what_does_not(text: str) -> None:
    assert read(text).wants() == read(HEAD + '[packs]\nlegal = "^1.2"\n').wants()


def test_the_order_of_packs_does_not_matter_and_that_of_registries_does() -> None:
    one = read(HEAD + '[packs]\na = "1"\nb = "1"\n[registries]\nx = "./x"\ny = "./y"\n')
    two = read(HEAD + '[packs]\nb = "1"\na = "1"\n[registries]\nx = "./x"\ny = "./y"\n')
    three = read(HEAD + '[packs]\na = "1"\nb = "1"\n[registries]\ny = "./y"\nx = "./x"\n')
    assert one.wants() == two.wants() != three.wants()


def test_the_example_of_the_page_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats" / "project.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    project = read(example)
    assert list(project.packs) == ["medical", "legal"]
    assert project.registries["ours"] == "./packs"
    assert project.machine.vram == "0"
