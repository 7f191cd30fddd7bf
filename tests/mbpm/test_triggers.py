"""Triggers: once per change, never twice for the same set, and never in the way of a change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from mbpm import triggers
from mbpm.transaction import writer
from mbpm.triggers import current_files, knowledge_index, rivals, router_table, run_triggers
from runtime import knowledge, routing_table
from runtime.knowledge import search
from runtime.routing_table import read_table
from specs.errors import DoesNotFitError
from specs.generation import Generation
from specs.manifest import KNOWLEDGE_FILE, ROUTING_FILE
from tests.support.derived import DerivedHome, base_routing, pack_routing

LEASES = {"Leases": "A lease ends when its term does."}
WILLS = {"Wills": "A will names who inherits."}


@pytest.fixture
def place(tmp_path: Path) -> DerivedHome:
    return DerivedHome(tmp_path)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what triggers really made, in order."""
    names: list[str] = []
    for module, function in ((routing_table, "build_table"), (knowledge, "build_index")):
        real = getattr(module, function)

        def watched(*given: object, real: Callable = real, name: str = function) -> object:
            names.append(name)
            return real(*given)

        monkeypatch.setattr(module, function, watched)
    return names


def table_of(place: DerivedHome, generation: Generation) -> Path:
    return router_table(place.home, generation, generation.bases[0])


def test_a_change_makes_the_table_and_the_index_once(place: DerivedHome, made: list[str]) -> None:
    packs = [place.pack("legal", knows=LEASES), place.pack("wills", knows=WILLS)]
    generation = place.change(*packs, place.pack("cook"))
    assert made == ["build_table", "build_index"]
    index = knowledge_index(place.home, generation)
    assert index is not None
    assert {place.home.derived / n for n in place.derived()} == {
        table_of(place, generation),
        index,
    }
    assert [(f.pack, f.title) for f in search(index, "lease inherits")] == [
        ("wills", "Wills"), ("legal", "Leases"),
    ]  # fmt: skip
    table = read_table(table_of(place, generation))
    manifests = {p.name: p.manifest for p in generation.packs}
    found = table.routings(base_routing(), manifests)
    for name in manifests:
        assert found[name].threshold == pack_routing(name).threshold
        assert found[name].prototypes.tolist() == pack_routing(name).prototypes.tolist()


def test_what_changes_no_pack_makes_nothing(place: DerivedHome, made: list[str]) -> None:
    pack = place.pack("legal", knows=LEASES)
    place.change(pack)
    before = place.derived()
    made.clear()
    place.change(pack.model_copy(update={"held": True}))
    assert (made, place.derived()) == ([], before)


def test_going_back_finds_the_earlier_files(place: DerivedHome, made: list[str]) -> None:
    legal, wills = place.pack("legal", knows=LEASES), place.pack("wills", knows=WILLS)
    first = place.change(legal)
    place.change(legal, wills)
    assert made == ["build_table", "build_index"] * 2
    made.clear()
    back = place.change(legal)
    assert made == []
    assert table_of(place, back) == table_of(place, first)
    assert knowledge_index(place.home, back) == knowledge_index(place.home, first)


def test_profiles_share(place: DerivedHome, made: list[str]) -> None:
    legal, wills = place.pack("legal"), place.pack("wills")
    place.change(legal, wills)
    made.clear()
    other = place.with_profile("work")
    other.change(wills, legal)
    assert made == []
    other.change(wills)
    assert made == ["build_table"]
    both = {place.home.derived / n for n in place.derived()}
    assert current_files(place.home) == current_files(other.home) == both
    place.change(legal)
    assert len(place.derived()) == 3
    assert len(current_files(place.home)) == 2


def test_nothing_installed_calls_for_nothing(place: DerivedHome, made: list[str]) -> None:
    place.change()
    assert (made, place.derived(), current_files(place.home)) == ([], [], set())


def test_a_base_without_calibration_has_no_table(place: DerivedHome, made: list[str]) -> None:
    place.change(place.pack("legal"), calibrated=False)
    assert (made, place.derived()) == ([], [])


def test_an_unchanged_set_imports_neither_numpy_nor_sqlite(place: DerivedHome) -> None:
    place.change(place.pack("legal", knows=LEASES))
    script = (
        "import sys; from pathlib import Path; from mbpm.home import Home;"
        "from mbpm.output import Output; from mbpm.triggers import run_triggers;"
        f"home = Home(Path({str(place.home.path)!r}));"
        "run_triggers(home, home.current(), Output());"
        "assert not {'numpy', 'torch', 'sqlite3', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_making_them_imports_no_torch(place: DerivedHome) -> None:
    place.change(place.pack("legal", knows=LEASES))
    for file in place.home.derived.iterdir():
        file.unlink()
    script = (
        "import sys; from pathlib import Path; from mbpm.home import Home;"
        "from mbpm.output import Output; from mbpm.triggers import run_triggers;"
        f"home = Home(Path({str(place.home.path)!r}));"
        "run_triggers(home, home.current(), Output());"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert len(place.derived()) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("moment", range(1, 4))
def test_killed_in_a_trigger_the_next_writer_finishes(place: DerivedHome, moment: int) -> None:
    """Killed before the table has its name, before the index is written, and before it has its."""
    legal, wills = place.pack("legal", knows=LEASES), place.pack("wills", knows=WILLS)
    place.change(legal)
    child = os.fork()
    if child == 0:
        seen = 0

        def watch(event: str, arguments: tuple) -> None:
            nonlocal seen
            if (event == "os.rename" and "derived" in str(arguments[1])) or (
                event == "sqlite3.connect" and "staging" in str(arguments[0])
            ):
                seen += 1
                if seen == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            place.change(legal, wills)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert [p.name for p in place.home.current().packs] == ["legal", "wills"], "the change counts"
    assert place.home.journal.exists()
    with writer(place.home, place.out, "mbpm test"):
        pass
    assert not place.home.journal.exists()
    current = place.home.current()
    assert read_table(table_of(place, current)).packs
    index = knowledge_index(place.home, current)
    assert index is not None
    assert len(search(index, "lease will")) == 2
    assert list(place.home.staging.glob("*")) == []


def test_a_damaged_table_is_made_again_by_the_next_change(
    place: DerivedHome, made: list[str]
) -> None:
    legal = place.pack("legal")
    file = table_of(place, place.change(legal))
    good = read_table(file)
    raw = file.read_bytes()
    file.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    place.change(legal.model_copy(update={"held": True}))
    assert read_table(file) == good


@pytest.mark.parametrize("name", [ROUTING_FILE, KNOWLEDGE_FILE])
def test_a_damaged_pack_is_a_warning_and_the_change_stands(
    place: DerivedHome, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    legal, wills = place.pack("legal", knows=LEASES), place.pack("wills")
    place.change(legal)
    before = place.derived()
    blob = place.home.store.manifest(legal.manifest).blob(name)
    file = place.home.store.pack_path(legal.manifest) / name
    good = file.read_bytes()
    stored = place.home.store.blob_path(blob.sha256)
    stored.chmod(0o600)
    stored.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    for derived in place.home.derived.iterdir():
        derived.unlink()
    generation = place.change(legal, wills)
    assert place.home.current() == generation
    assert not place.home.journal.exists()
    warning = capsys.readouterr().err
    kind = "router" if name == ROUTING_FILE else "knowledge"
    assert f"warning: trigger `{kind}`: legal 1.0.0: " in warning
    assert "do not match the digest" in warning
    assert "`mbpm reinstall legal` mends it" in warning
    assert [n.split("-")[0] for n in place.derived()] == [
        "knowledge" if kind == "router" else "router"
    ]
    stored.write_bytes(good)
    place.change(legal)
    assert set(place.derived()) >= set(before)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device", "/x"), DoesNotFitError("full"), MemoryError()]
)
def test_a_full_disk_is_a_warning_and_the_change_stands(
    place: DerivedHome, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    legal = place.pack("legal", knows=LEASES)
    with (
        mock.patch("mbpm.files.check_space", side_effect=error),
        mock.patch("runtime.routing_table.build_table", side_effect=error),
    ):
        generation = place.change(legal)
    assert place.home.current() == generation
    assert not place.home.journal.exists()
    assert capsys.readouterr().err.count("warning: trigger") == 2
    assert place.derived() == []
    run_triggers(place.home, generation, place.out)
    assert len(place.derived()) == 2


def test_an_index_that_fails_half_way_leaves_nothing(
    place: DerivedHome, capsys: pytest.CaptureFixture[str]
) -> None:
    legal = place.pack("legal", knows=LEASES)
    with mock.patch("specs.knowledge.MAX_PASSAGES", 0):
        place.change(legal)
    assert "holds more than 0 passages" in capsys.readouterr().err
    assert [n for n in place.derived() if "knowledge" in n] == []
    assert not list(place.home.staging.glob("*"))


def test_new_packs_that_answer_alike_are_named_once(
    place: DerivedHome, capsys: pytest.CaptureFixture[str]
) -> None:
    legal, cook = place.pack("legal"), place.pack("cook")
    place.change(legal, cook)
    assert capsys.readouterr().err == ""
    lease = place.pack("lease", near="legal")
    generation = place.change(legal, cook, lease)
    (pair,) = rivals(place.home, generation, generation.bases[0])
    assert capsys.readouterr().err == (
        f"lease and legal answer alike (similarity {pair.similarity:.2f}): the router may pick "
        "either; `--pack NAME` decides\n"
    )
    # not again when something else comes, but again when it comes back
    place.change(legal, cook, lease, place.pack("wills"))
    place.change(legal, cook)
    assert capsys.readouterr().err == ""
    place.change(legal, cook, lease)
    assert "lease and legal answer alike" in capsys.readouterr().err


def test_many_alike_are_not_all_listed(
    place: DerivedHome, capsys: pytest.CaptureFixture[str]
) -> None:
    packs = [place.pack("legal"), *(place.pack(f"lease{i}", near="legal") for i in range(12))]
    place.change(*packs)
    notes = capsys.readouterr().err.splitlines()
    assert 0 < len(notes) <= triggers.MOST_NOTES
    assert all("answer alike" in n for n in notes)
