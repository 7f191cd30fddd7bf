"""`bench index` on a registry small enough for a test; how fast anything is, is not tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import index_worker, many_packs, simple_index
from bench.index_worker import asked, main
from bench.web import serving
from registry_index.summary import read_summary
from registry_index.tree import Registry

PACKS = 1100


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many_packs.make(tmp_path_factory.mktemp("many"), PACKS)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_worker, "PACKS", PACKS)


def test_the_same_registry_every_time(registry: Path, tmp_path: Path) -> None:
    again = many_packs.make(tmp_path / "again", PACKS)
    one, other = read_summary(Registry(registry)), read_summary(Registry(again))
    assert one is not None
    assert other is not None
    assert one.root == other.root
    assert one.root.packs == PACKS
    kept = (again / many_packs.DONE_FILE).stat().st_mtime_ns
    assert many_packs.make(again, PACKS) == again
    assert (again / many_packs.DONE_FILE).stat().st_mtime_ns == kept


def test_every_job_on_it(registry: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serving(registry) as web:
        first = main(home, web.url, "refresh", [])
        assert (first["packs"], first["problems"]) == (PACKS, [])
        _, before = web.count()
        assert main(home, web.url, "refresh", [])["fetched_bytes"] == 0
        many_packs.change(registry, [5], "9.0.0")
        changed = main(home, web.url, "refresh", [])
        assert changed["changed_pages"] == 1
        assert web.count()[1] - before == changed["fetched_bytes"] < first["fetched_bytes"]
        found = main(home, web.url, "search", ["law", "nothing-like-it"])
        assert found["law"]["total"] > 0
        assert found["nothing-like-it"]["total"] == 0
        (chosen,) = main(home, web.url, "resolve", ["1"])["requests"]
        assert chosen["packs"] >= index_worker.ASKED
        for job in ("resolve-cold", "resolve-ahead"):
            assert main(home, web.url, job, ["1"])["packs"] == chosen["packs"]


def test_requirements_as_pip_knows_them(tmp_path: Path) -> None:
    provided = next(
        number
        for number in range(400, 500)
        for line in many_packs.lines_of(number, "0" * 64)
        if any(many_packs.is_virtual(name) for name in line["requires"])
    )
    projects = simple_index.write(tmp_path, [*asked(1)[:3], provided])
    folders = list((tmp_path / "simple").iterdir())
    assert len(folders) == projects >= 3
    for folder in folders:
        assert len(list(folder.glob("*.metadata"))) == len(many_packs.VERSIONS)
        assert "data-core-metadata" in (folder / "index.html").read_text()
    assert simple_index._range("^2") == ">=2,<3"
