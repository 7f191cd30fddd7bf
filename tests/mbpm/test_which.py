"""`mbpm which` on the real base, and on homes where there is nothing to decide."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest import mock

import pytest

from mbpm.home import Home
from mbpm.triggers import knowledge_index, router_table
from runtime.torch_engine import TorchEngine
from tests.support.cli import Cli
from tests.support.derived import DerivedHome
from tests.support.real_home import RealHome


@pytest.fixture
def mbpm(real_home: RealHome) -> Cli:
    return Cli(real_home.path)


def test_the_pack_and_why(mbpm: Cli) -> None:
    first, second = mbpm.ok("which", "How do I peel bananas?").out.splitlines()
    assert first == "fruit would answer"
    assert second.startswith("  fruit: score ")
    assert "above its threshold" in second


def test_the_base_alone_is_an_answer(mbpm: Cli) -> None:
    done = mbpm("which", "What is the capital of Peru?")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("the base alone would answer\n")
    assert "below its threshold" in done.out


def test_json_agrees_with_run(mbpm: Cli) -> None:
    question = "How do I store plums?"
    found = mbpm.ok("which", question, "--json").json
    ran = mbpm.ok("run", question, "--json", "--max-tokens", "1").json
    assert (found["pack"], found["question"], found["base"]) == ("fruit", question, ran["base"])
    (mine,), (theirs,) = found["scores"], ran["routing"]["scores"]
    assert mine["score"] == pytest.approx(theirs["score"], abs=0.02)
    assert mine["threshold"] == theirs["threshold"]
    assert (found["alike"], found["passages"]) == ([], [])


def test_quiet_is_a_name_for_scripts(mbpm: Cli) -> None:
    assert mbpm.ok("which", "How do I peel bananas?", "--quiet").out == "fruit\n"
    assert mbpm.ok("which", "What is the capital of Peru?", "--quiet").out == "none\n"


def test_standard_input_only_where_it_is_asked_for(real_home: RealHome) -> None:
    done = real_home("which", "-", "--json", stdin="How do I peel bananas?\n")
    assert json.loads(done.stdout)["question"] == "How do I peel bananas?"
    done = real_home("which", "What is the capital of Peru?", "--quiet", stdin="peel bananas\n")
    assert done.stdout == "none\n"


def test_only_the_layers_that_the_router_looks_at_are_loaded(mbpm: Cli) -> None:
    made = []

    class Watched(TorchEngine):
        def __init__(self, *given: object, **named: object) -> None:
            super().__init__(*given, **named)  # type: ignore[arg-type]
            made.append(self)

    with mock.patch("runtime.torch_engine.TorchEngine", Watched):
        mbpm.ok("which", "How do I peel bananas?", "--engine", "torch")
    (engine,) = made
    assert len(engine.model.layers) < engine.config.layers / 2
    assert engine.memory()["adapters"] == 0


def test_the_table_is_there_and_changes_no_decision(real_home: RealHome, tmp_path: Path) -> None:
    shutil.copytree(real_home.path, tmp_path / "home", copy_function=shutil.copy)
    home, cli = Home(tmp_path / "home"), Cli(tmp_path / "home")
    generation = home.current()
    base = generation.base("smollm2-135m")
    assert base is not None
    table = router_table(home, generation, base)
    assert table.is_file()
    with mock.patch("runtime.router.PackRouting.load", side_effect=AssertionError("was read")):
        expected = cli.ok("which", "How do I peel bananas?", "--json").json
    raw = table.read_bytes()
    table.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert cli.ok("which", "How do I peel bananas?", "--json").json == expected
    table.unlink()
    assert cli.ok("which", "How do I peel bananas?", "--json").json == expected


def test_passages_with_their_pack(mbpm: Cli, tmp_path: Path, real_home: RealHome) -> None:
    place = DerivedHome(tmp_path)
    pack = place.pack("cellar", knows={"Plums": "Plums keep\nin the cold. " * 20})
    index = knowledge_index(place.home, place.change(pack))
    assert index is not None
    with mock.patch("mbpm.triggers.knowledge_index", return_value=index):
        document = mbpm.ok("which", "How do I store plums?", "--json").json
        (passage,) = document["passages"]
        assert (passage["pack"], passage["title"]) == ("cellar", "Plums")
        assert passage["text"] == "Plums keep\nin the cold. " * 20
        *_, heading, line = mbpm.ok("which", "How do I store plums?").out.splitlines()
        assert heading == "passages"
        assert line.startswith("  cellar: Plums: Plums keep in the cold. ")
        assert line.endswith("…")
        assert "passages" not in mbpm.ok("which", "What is a zebra?").out
        index.write_bytes(b"damaged")
        done = mbpm.ok("which", "How do I store plums?")
        assert done.out.startswith("fruit would answer")
        assert "delete it, and the next change makes it anew" in done.err
        index.unlink()
        assert "passages of packs are not indexed" in mbpm.ok("which", "plums").err


def test_a_pack_that_answers_alike_is_named(mbpm: Cli) -> None:
    from runtime.routing_table import Rivals

    pairs = [Rivals("apples", "fruit", 0.87), Rivals("law", "legal", 0.9)]
    with mock.patch("mbpm.triggers.rivals", return_value=pairs):
        done = mbpm.ok("which", "How do I peel bananas?")
        document = mbpm.ok("which", "How do I peel bananas?", "--json").json
    assert "  apples answers alike (similarity 0.87)" in done.out
    assert "legal" not in done.out
    assert document["alike"] == [{"pack": "apples", "similarity": 0.87}]


def test_nothing_installed(tmp_path: Path) -> None:
    done = Cli(tmp_path / "empty")("which", "x")
    assert (done.code, done.out) == (3, "")
    assert "no base is installed" in done.err


def test_a_base_without_packs(tmp_path: Path) -> None:
    place = DerivedHome(tmp_path)
    place.change()
    done = Cli(place.home.path)("which", "x")
    assert (done.code, done.out) == (3, "")
    assert "no packs are installed for base tiny, so it answers everything itself" in done.err
    assert "mbpm search" in done.err


def test_a_base_without_calibration(tmp_path: Path) -> None:
    place = DerivedHome(tmp_path)
    place.change(place.pack("legal"), calibrated=False)
    done = Cli(place.home.path)("which", "x")
    assert (done.code, done.out) == (3, "")
    assert "base tiny has no routing data" in done.err
    assert "mbpm run --pack NAME" in done.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([""], 2, "the question is empty"),
        (["  \n"], 2, "the question is empty"),
        (["x", "--base", "qwen9"], 3, "`qwen9` is not installed"),
        (["x", "--device", "tpu7"], 2, "not a device"),
        (["word " * 9000], 8, "the question is too long"),
    ],
)
def test_what_cannot_be_asked(mbpm: Cli, words: list[str], code: int, message: str) -> None:
    done = mbpm("which", *words)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
