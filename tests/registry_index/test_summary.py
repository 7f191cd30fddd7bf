"""The summary of a registry: what it says, how it is read, and how it is kept true."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_index import summarising
from registry_index.__main__ import main
from registry_index.marking import deprecate, yank
from registry_index.summarising import changing, rebuild
from registry_index.summary import Summary, newest_line, parse_page, read_summary, summary_of
from registry_index.tree import Registry, index_path, parse_index
from registry_index.writing import writing
from specs.errors import IntegrityError, MbpmError, NotFoundError, UsageError
from specs.index_line import IndexLine
from specs.summary import PAGE_PACKS, PackSummary, SummaryRoot, page_count, page_of
from specs.versions import Version
from tests.registry_index.test_tree import line, raw
from tests.support.packs import pack_folder, published, registry_with_base


@pytest.fixture
def root(tmp_path: Path) -> Path:
    registry_with_base(tmp_path / "team", tmp_path / "files")
    return tmp_path / "team"


@pytest.fixture
def publish(tmp_path: Path, root: Path) -> Callable[..., None]:
    def make(name: str, version: str = "1.0.0", **changes: Any) -> None:
        published(pack_folder(tmp_path / f"{name}-{version}", name, version, **changes), root)

    return make


def write_index(root: Path, name: str, content: bytes) -> None:
    file = root / "index" / index_path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def summary(root: Path) -> Summary:
    found = read_summary(Registry(root))
    assert found is not None
    return found


def packs(root: Path) -> dict[str, PackSummary]:
    found = summary(root)
    pages = [found.page(number) for number in range(len(found.root.pages))]
    assert not any(page.problems for page in pages)
    return {p.name: p for page in pages for p in page.packs}


def said_of(*lines: dict[str, Any]) -> PackSummary:
    content = raw(*lines)
    found = summary_of("legal", parse_index(content, "legal", "f"), content)
    assert found is not None
    return found


def test_the_newest_release_stands_for_a_pack() -> None:
    said = said_of(
        line(version="1.0.0", provides=["law"]),
        line(version="2.0.0", yanked=True, description="yanked", provides=["lex"]),
        line(version="1.5.0", description="newest", replaces={"old-law": "*"}),
        line(version="3.0.0-rc.1", description="not yet"),
    )
    assert (said.version, said.description) == ("1.5.0", "newest")
    assert said.provides == ("law", "lex", "old-law")
    assert not said.yanked


def test_without_a_release_or_without_anything_to_be_had() -> None:
    assert said_of(line(version="1.0.0-rc.1"), line(version="1.0.0-rc.2")).version == "1.0.0-rc.2"
    said = said_of(line(yanked=True), line(version="1.1.0", yanked=True))
    assert (said.version, said.yanked) == ("1.1.0", True)
    future = raw({"format": 2, "name": "legal", "version": "1.0.0"})
    assert summary_of("legal", parse_index(future, "legal", "f"), future) is None


def test_publishing_keeps_it_true(root: Path, publish: Callable[..., None]) -> None:
    publish("alpha")
    publish("beta", provides=("letters",))
    publish("alpha", "1.1.0")
    found = packs(root)
    assert {n: p.version for n, p in found.items()} == {"alpha": "1.1.0", "beta": "1.0.0"}
    assert found["beta"].provides == ("letters",)
    whole = summary(root).root
    assert whole.packs == 2
    assert list(whole.bases) == ["tiny"]
    yank(root, "alpha", Version("1.1.0"))
    assert packs(root)["alpha"].version == "1.0.0"
    digest, size = packs(root)["alpha"].index
    content = Registry(root).raw_index("alpha")
    assert (len(content), said_by(content)) == (size, digest)


def said_by(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def test_pages_double_as_packs_come(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"pack-{number}" for number in range(3 * PAGE_PACKS)]
    for start in range(0, len(names), 100):
        some = names[start : start + 100]
        with writing(root) as registry, changing(registry, *some):
            for name in some:
                write_index(root, name, raw(line(name)))
        assert packs(root).keys() == set(names[: start + 100])
    assert len(summary(root).root.pages) == 4
    before = summary(root).root
    with writing(root) as registry:
        assert rebuild(registry) == []
    assert summary(root).root == before


def test_an_index_file_that_vanishes_leaves_the_summary(
    root: Path, publish: Callable[..., None]
) -> None:
    publish("alpha")
    publish("beta")
    with writing(root) as registry, changing(registry, "alpha"):
        (root / "index" / index_path("alpha")).unlink()
    assert packs(root).keys() == {"beta"}
    assert summary(root).root.packs == 1


def test_readers_do_without_a_summary_that_is_being_changed(
    root: Path, publish: Callable[..., None]
) -> None:
    publish("alpha")
    with pytest.raises(RuntimeError), writing(root) as registry, changing(registry, "alpha"):
        raise RuntimeError
    assert read_summary(Registry(root)) is None
    publish("beta")
    assert packs(root).keys() == {"alpha", "beta"}


@pytest.mark.parametrize("damage", ["root", "page", "page gone", "mark", "pages that lie"])
def test_a_damaged_summary_is_made_anew_by_the_next_publisher(
    root: Path, publish: Callable[..., None], damage: str
) -> None:
    publish("alpha")
    found = summary(root)
    page = next(d for d, size in found.root.pages if size)
    if damage == "root":
        (found.folder / "root.json").write_text("{")
    elif damage == "page":
        (found.folder / page).write_bytes(b"junk")
    elif damage == "page gone":
        (found.folder / page).unlink()
    elif damage == "mark":
        (found.folder / ".pending").write_text('["../x"]')
    else:
        value = json.loads((found.folder / "root.json").read_bytes())
        value["pages"] = value["pages"] * 3
        (found.folder / "root.json").write_text(json.dumps(value))
    publish("alpha", "1.1.0")
    assert packs(root)["alpha"].version == "1.1.0"


def test_old_pages_stay_for_a_day(
    root: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("alpha")
    old = summary(root)
    publish("alpha", "1.1.0")
    assert old.page(0).packs[0].version == "1.0.0"
    file = old.folder / old.root.pages[0][0]
    day_before = time.time() - summarising.STALE_SECONDS - 60
    os.utime(file, (day_before, day_before))
    publish("alpha", "1.2.0")
    assert not file.exists()


def test_a_damaged_index_is_said_and_hides_no_other(
    root: Path, publish: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    publish("alpha")
    write_index(root, "beta", b"{broken")
    assert main(["summarise", str(root)]) == 5
    assert "packs: 2, damaged: 1" in capsys.readouterr().out
    page = summary(root).page(0)
    assert [p.name for p in page.packs] == ["alpha"]
    (problem,) = page.problems
    assert problem.name == "beta"
    assert "`beta`: index/be/ta/beta, line 1: is not JSON" in problem.message
    assert str(root) + os.sep + "index" not in problem.message


def test_summarise_makes_no_registry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summarise", str(tmp_path / "none")]) == 3
    assert not (tmp_path / "none").exists()
    assert "no registry at" in capsys.readouterr().err


def text_of(name: str = "legal", **changes: Any) -> bytes:
    said = said_of(line()).model_dump(mode="json") | {"name": name} | changes
    return json.dumps(said).encode() + b"\n"


@pytest.mark.parametrize(
    ("text", "rule", "name"),
    [
        (b"{\n", "is not JSON", None),
        (b"\xff\n", "is not UTF-8", None),
        (b"[]\n", "dictionary|object", None),
        (b"[" * 100_000 + b"\n", "nested too deeply|is not JSON", None),
        (text_of("../../etc/passwd"), "`name`", None),
        (text_of("le\u0000gal"), "`name`", None),
        (text_of("l\u0435gal"), "`name`", None),
        (text_of(version="x"), "`version`", "legal"),
        (text_of(surprise=1), "unknown key `surprise`", "legal"),
        (text_of(format=7), "has format 7", "legal"),
        (text_of(index=["0" * 64, 0]), "`index", "legal"),
        (text_of(index=["0" * 64, 1 << 40]), "`index", "legal"),
        (text_of(publisher="a\nb"), "`publisher`", "legal"),
        (text_of(broken="cut in half"), "`legal`: cut in half", "legal"),
        (text_of()[:-2] + b',"name":"other"}\n', "stands twice", None),
        (text_of() + text_of(), "does not belong here", "legal"),
    ],
)
def test_a_malformed_line_costs_its_own_pack_only(text: bytes, rule: str, name: str | None) -> None:
    page = parse_page(text_of("aaa") + text + text_of("zzz"), 0, 1, "a page")
    assert {"aaa", "zzz"} <= {p.name for p in page.packs}
    (problem,) = page.problems
    assert problem.name == name
    assert problem.message.startswith("a page, line ")
    import re

    assert re.search(rule, problem.message)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_page_with_problems(noise: bytes) -> None:
    page = parse_page(noise, 0, 1, "a page")
    assert all(p.message.startswith("a page, line ") for p in page.problems)


@given(
    st.lists(st.sampled_from(["1.0.0", "1.1.0", "2.0.0-rc.1", "0.1.0"]), min_size=1, unique=True)
)
def test_the_newest_line_is_none_that_another_beats(versions: list[str]) -> None:
    lines = [IndexLine.from_object(line(version=v), "t") for v in versions]
    newest = newest_line(lines)
    releases = [x for x in lines if "-" not in x.version]
    assert newest in (releases or lines)
    assert all(Version(x.version) <= Version(newest.version) for x in releases or lines)


@given(st.text("abcdefghij0123", min_size=1, max_size=12), st.integers(0, 10))
def test_pages_split_evenly_when_they_double(name: str, power: int) -> None:
    pages = 1 << power
    assert page_of(name, pages) == page_of(name, pages * 2) // 2
    assert 0 <= page_of(name, pages) < pages


def test_page_counts() -> None:
    assert [page_count(n) for n in (0, 1, 128, 129, 256, 257, 100_000)] == [1, 1, 1, 2, 2, 4, 1024]


@pytest.mark.parametrize(
    "changes",
    [
        {"pages": []},
        {"pages": [["0" * 64, 1]] * 3},
        {"pages": [["0" * 64, -1]]},
        {"pages": [["x" * 64, 1]]},
        {"pages": [["0" * 64, 1 << 30]]},
        {"bases": {"../x": ["0" * 64, 1]}},
        {"bases": {"tiny": ["0" * 64, 1 << 30]}},
        {"packs": -1},
    ],
)
def test_a_root_that_is_none(changes: dict[str, Any]) -> None:
    value = {"format": 1, "packs": 1, "pages": [["0" * 64, 1]], "bases": {}} | changes
    with pytest.raises(IntegrityError):
        SummaryRoot.from_object(value, "root")


def test_deprecating_and_yanking_change_nothing_else(
    root: Path, publish: Callable[..., None]
) -> None:
    publish("alpha")
    future = b'{"format":2,"name":"alpha","version":"9.0.0"}\n'
    write_index(root, "alpha", Registry(root).raw_index("alpha") + future)
    publish("alpha", "1.1.0")
    before = Registry(root).raw_index("alpha").splitlines()
    assert yank(root, "alpha", Version("1.0.0+build"))
    assert not yank(root, "alpha", Version("1.0.0"))
    after = Registry(root).raw_index("alpha").splitlines()
    assert after[1:] == before[1:]
    assert json.loads(after[0]) == json.loads(before[0]) | {"yanked": True}
    assert yank(root, "alpha", Version("1.0.0"), undo=True)
    assert Registry(root).raw_index("alpha").splitlines() == before
    assert deprecate(root, "alpha", None, "use omega")
    assert [x.deprecated for x in Registry(root).lines("alpha")] == ["use omega"] * 2
    assert packs(root)["alpha"].deprecated == "use omega"
    assert deprecate(root, "alpha", Version("1.1.0"), "")
    assert [x.deprecated for x in Registry(root).lines("alpha")] == ["use omega", ""]


def test_what_cannot_be_marked(root: Path, publish: Callable[..., None], tmp_path: Path) -> None:
    publish("alpha")
    with pytest.raises(NotFoundError, match=r"has no alpha 2\.0\.0"):
        yank(root, "alpha", Version("2.0.0"))
    with pytest.raises(NotFoundError, match="no pack `beta`"):
        yank(root, "beta", Version("2.0.0"))
    with pytest.raises(NotFoundError, match="no registry"):
        yank(tmp_path / "none", "beta", Version("2.0.0"))
    with pytest.raises(UsageError, match="the message"):
        deprecate(root, "alpha", None, "two\nlines")
    with pytest.raises(MbpmError):
        yank(root, "../x", Version("1.0.0"))
