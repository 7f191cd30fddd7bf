"""Changing mbpm.toml without touching what is not concerned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbpm.project.edit import changed, new_file
from specs.project import PROJECT_FILE, Project, WantedPack

OLD = """\
# Our clinic's packs
format = 1

[project]
name = "clinic"   # for people

[packs]
# words
medical = "^0.1"    # never above 0.1

# tenancy
legal = { version = "^1",  registry = "team" }  # theirs

[registries]
team = "../x"
"""


def put(text: str, **packs: WantedPack) -> str:
    return changed(text.encode(), packs)[0].decode()


def test_a_new_file_is_a_project() -> None:
    text = new_file("clinic").decode()
    assert text.endswith('[project]\nname = "clinic"\n\n[packs]\n')
    assert Project.parse_toml(text.encode(), PROJECT_FILE).packs == {}
    more = Project.parse_toml(new_file("clinic", profile="p", base="tiny"), PROJECT_FILE)
    assert (more.profile, more.project.base) == ("p", "tiny")


def test_adds_at_the_end_of_the_table() -> None:
    new = put(OLD, zeta=WantedPack(version="^2"))
    assert new == OLD.replace("# theirs\n", '# theirs\nzeta = "^2"\n')


def test_adds_with_a_registry() -> None:
    new = put(OLD, zeta=WantedPack(version="^2", registry="./p"))
    assert new == OLD.replace(
        "# theirs\n", '# theirs\nzeta = { version = "^2", registry = "./p" }\n'
    )


def test_changes_a_requirement_in_place() -> None:
    assert put(OLD, medical=WantedPack(version="^0.2")) == OLD.replace("^0.1", "^0.2")


def test_changes_a_table_in_place() -> None:
    assert put(OLD, legal=WantedPack(version="=1.2.0", registry="team")) == OLD.replace(
        'version = "^1"', 'version = "=1.2.0"'
    )


def test_a_requirement_becomes_a_table() -> None:
    new = put(OLD, medical=WantedPack(version="^0.1", registry="team"))
    assert 'medical = { version = "^0.1", registry = "team" }' in new
    assert "# never above 0.1" in new


def test_drops_a_line() -> None:
    new, project = changed(OLD.encode(), drop=["medical"])
    assert new.decode() == OLD.replace('medical = "^0.1"    # never above 0.1\n', "")
    assert list(project.packs) == ["legal"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('[project]\nname = "x"\n', '[project]\nname = "x"\n\n[packs]\na = "1"\n'),
        (
            '[project]\nname = "x"\n\n[packs]\n\n[registries]\n',
            '[project]\nname = "x"\n\n[packs]\na = "1"\n\n[registries]\n',
        ),
        (
            'project.name = "x"\npacks.b = "2"\n',
            'project.name = "x"\npacks.b = "2"\npacks.a = "1"\n',
        ),
        (
            '[project]\nname = "x"\n[packs.b]\nversion = "2"\n',
            '[project]\nname = "x"\n[packs]\na = "1"\n\n[packs.b]\nversion = "2"\n',
        ),
        ('packs = {}\nproject = { name = "x" }\n', 'packs = {a = "1"}\nproject = { name = "x" }\n'),
    ],
)
def test_other_ways_of_writing(before: str, after: str) -> None:
    assert put(before, a=WantedPack(version="1")) == after


def test_windows_line_ends_stay() -> None:
    new, _ = changed(OLD.replace("\n", "\r\n").encode(), {"zeta": WantedPack(version="1")})
    assert new.count(b"\r\n") == new.count(b"\n") == OLD.count("\n") + 1


def test_a_name_with_a_dot_is_one_key() -> None:
    new = put(OLD, **{"law.basics": WantedPack(version="1")})
    assert '"law.basics" = "1"' in new


keys = st.sampled_from(["a", "b", "c.d", "e-f", "g"])
wanted = st.builds(
    WantedPack,
    version=st.sampled_from(["1", "^1.2", ">=1, <3", "*"]),
    registry=st.none() | st.sampled_from(["team", './it\'s "x"/y', "https://example.org/ü"]),
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A project as people write it: blank lines, comments, tables of every form."""
    lines = ["[project]", 'name = "x"', "[packs]"]
    tables = []
    for name in draw(st.lists(keys, unique=True)):
        key = f'"{name}"' if "." in name else name
        lines += draw(st.lists(st.sampled_from(["", "# words", "  # more"]), max_size=2))
        form = draw(st.sampled_from(["short", "inline", "dotted", "table"]))
        comment = draw(st.sampled_from(["", "  # why"]))
        if form == "short":
            lines.append(f"{key} = '1.0'{comment}")
        elif form == "inline":
            lines.append(f'{key} = {{version="1.0"}}{comment}')
        elif form == "dotted":
            lines.append(f'{key}.version = "1.0"{comment}')
        else:
            tables += ["", f"[packs.{key}]", f'version = "1.0"{comment}']
    lines += draw(st.lists(st.sampled_from(["", "# end"]), max_size=2))
    rest = ["[registries]", 'team = "./x"'] if draw(st.booleans()) else []
    return "\n".join([*lines, *tables, *rest, ""])


@given(documents(), st.dictionaries(keys, wanted, max_size=3), st.data())
def test_says_what_was_asked_and_keeps_every_comment(
    text: str, packs: dict[str, WantedPack], data: st.DataObject
) -> None:
    before = Project.parse_toml(text.encode(), PROJECT_FILE)
    there = sorted(before.packs.keys() - packs.keys())
    gone = data.draw(st.lists(st.sampled_from(there), unique=True)) if there else []
    new, project = changed(text.encode(), packs, gone)
    assert Project.parse_toml(new, PROJECT_FILE) == project
    assert project.packs == {n: w for n, w in {**before.packs, **packs}.items() if n not in gone}
    assert project.registries == before.registries
    if not gone:
        assert new.count(b"#") == text.count("#")
