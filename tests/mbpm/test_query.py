"""Searching: the same answers from SQLite and from plain reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbpm.registries import searching
from mbpm.registries.cache import Cache
from mbpm.registries.query import Query, best
from mbpm.registries.refresh import _replace
from registry_index.summary import Page
from specs.errors import UsageError
from specs.manifest import BaseRef
from specs.summary import PackSummary
from tests.support.packs import FINGERPRINT


def pack(name: str, description: str = "x", **changes: Any) -> PackSummary:
    values: dict[str, Any] = {
        "name": name,
        "version": "1.0.0",
        "domain": "law",
        "description": description,
        "license": "MIT",
        "base": BaseRef(name="tiny", fingerprint=FINGERPRINT),
        "size": 1,
        "published": "2026-01-01T00:00:00Z",
        "index": ("0" * 64, 1),
    }
    return PackSummary(**(values | changes))


def cached(folder: Path, packs: list[PackSummary]) -> Cache:
    cache = Cache(folder)
    page = Page(tuple(packs), tuple(p.canonical().strip() for p in packs))
    with cache.guarded() as db:
        db.execute("BEGIN")
        _replace(db, 0, page, words=not cache.meta("wordless"))
        db.execute("COMMIT")
    return cache


def found(packs: list[PackSummary], query: Query, folder: Path, limit: int | None = None) -> Any:
    """The names both ways, which must be the same set."""
    cache = cached(folder, packs)
    by_words = searching.search(cache, query, limit)
    cache.close()
    by_reading = best(packs, query, limit)
    assert by_words.total == by_reading.total
    if limit is None:
        assert {p.name for p in by_words.packs} == {p.name for p in by_reading.packs}
    return [p.name for p in by_words.packs]


LIBRARY = [
    pack("legal", "Contracts and leases"),
    pack("legal-tax", "Tax law", domain="tax", provides=("levy",)),
    pack("medical", "Diagnoses; x-ray pictures, Ärzte, naïve questions", domain="medicine"),
    pack("gone", "Contracts of the past", yanked=True),
    pack("other", "Contracts", base=BaseRef(name="qwen2.5-0.5b", fingerprint="c" * 64)),
    pack("other-two", "x", base=BaseRef(name="qwen2.5-0.5b-instruct", fingerprint="d" * 64)),
]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (Query(), {"legal", "legal-tax", "medical", "other", "other-two"}),
        (Query(("CONTR",)), {"legal", "other"}),
        (Query(("contr", "lease")), {"legal"}),
        (Query(("legal-tax",)), {"legal-tax"}),
        (Query(("legal", "law")), {"legal", "legal-tax"}),
        (Query(("egal",)), set()),
        (Query(("x-ray",)), {"medical"}),
        (Query(("ray",)), {"medical"}),
        (Query(("x-pic",)), set()),
        (Query(("arzte",)), {"medical"}),
        (Query(("ärz",)), {"medical"}),
        (Query(("NAIVE",)), {"medical"}),
        (Query(("levy",)), {"legal-tax"}),
        (Query(base="qwen2.5-0.5b"), {"other"}),
        (Query(("contracts",), base="tiny"), {"legal"}),
        (Query(domain="tax"), {"legal-tax"}),
        (Query(domain="ta"), set()),
        (Query(("legal",), domain="law"), {"legal"}),
        (Query(("qwen2",)), set()),
        (Query(('"',)), None),
        (Query(("NEAR(a b)",)), set()),
        (Query(("name:legal",)), set()),
        (Query(("legal*",)), {"legal", "legal-tax"}),
        (Query(("OR",)), set()),
        (Query(("x" * 1000,)), set()),
        (Query(tuple("abcdefghij") * 6), None),
    ],
)
def test_what_a_query_means(query: Query, names: set[str] | None, tmp_path: Path) -> None:
    if names is None:
        with pytest.raises(UsageError):
            _ = query.words
        return
    assert set(found(LIBRARY, query, tmp_path)) == names


def test_the_name_itself_comes_first(tmp_path: Path) -> None:
    packs = [
        pack("aaa", "tax tax tax tax tax tax"),
        pack("tax-forms", "tax"),
        pack("tax", "unrelated"),
        pack("law-tax", "x"),
    ]
    assert found(packs, Query(("tax",)), tmp_path) == ["tax", "tax-forms", "law-tax", "aaa"]
    assert [p.name for p in best(packs, Query(("tax",)), 2).packs] == ["tax", "tax-forms"]


def test_a_limit_and_how_many_there_are(tmp_path: Path) -> None:
    packs = [pack(f"pack-{n:03d}", "words to find") for n in range(30)]
    assert len(found(packs, Query(("find",)), tmp_path, limit=10)) == 10
    assert len(found(packs, Query(("pack",)), tmp_path / "b", limit=10)) == 10
    assert len(found(packs, Query(), tmp_path / "c", limit=10)) == 10


def test_too_many_matches_put_names_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "RANKED", 5)
    packs = [pack(f"pack-{n:03d}", "all about tax") for n in range(30)]
    packs.append(pack("zz-tax", "x"))
    assert found(packs, Query(("tax",)), tmp_path, limit=3)[0] == "zz-tax"
    assert len(found(packs, Query(("tax",)), tmp_path / "b")) == 31


def test_without_fts5(tmp_path: Path) -> None:
    cache = cached(tmp_path, LIBRARY)
    cache.remember(wordless=1)
    answer = searching.search(cache, Query(("contr",)), 1)
    assert ([p.name for p in answer.packs], answer.total) == (["legal"], 2)


some_words = st.sampled_from(
    [
        "tax",
        "taxes",
        "Straße",
        "naïve",
        "e\u0301te\u0301",
        "x-ray",
        "ab12",
        "a_b",
        "ﬁne",
        "İzmir",
        ".",
    ]
)
some_names = st.lists(
    st.sampled_from(["tax", "tax-law", "xray", "ab12", "a.b", "fine", "ete"]), unique=True
)


@settings(max_examples=60, deadline=None)
@given(some_names, st.lists(some_words, min_size=1, max_size=4), st.lists(some_words, max_size=2))
def test_sqlite_and_reading_agree(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], text: list[str], terms: list[str]
) -> None:
    packs = [pack(n, " ".join(text[i:] or text)) for i, n in enumerate(names)]
    query = Query(tuple(terms))
    try:
        _ = query.words
    except UsageError:
        return
    found(packs, query, tmp_path_factory.mktemp("cache"))
