"""`mbpm run` on the real base, in this process and, where streams matter, in another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mbpm.asking import question_text
from specs.errors import UsageError
from tests.support.cli import Cli
from tests.support.real_home import RealHome

COLOUR = "Name one colour."
FAST = ("--max-tokens", "8", "--seed", "1")


@pytest.fixture
def mbpm(real_home: RealHome) -> Cli:
    return Cli(real_home.path)


def document(result: Any) -> dict[str, Any]:
    assert result.code == 0, result.err
    return dict(result.json)


def test_the_answer_is_all_there_is_on_stdout(real_home: RealHome) -> None:
    done = real_home("run", "What is the capital of France?", "--temperature", "0")
    assert done.returncode == 0
    assert "Paris" in done.stdout
    assert done.stderr == ""


def test_json_is_one_document_that_tells_everything(mbpm: Cli) -> None:
    result = document(mbpm("run", "How do I peel bananas?", "--json", *FAST))
    assert result["answer"]
    assert result["packs"] == ["fruit"]
    assert result["seed"] == 1
    (score,) = result["routing"]["scores"]
    assert result["routing"]["pack"] == score["pack"] == "fruit"
    assert score["score"] >= score["threshold"]
    assert result["base"]["name"] == "smollm2-135m"
    assert result["finish"] == "length"
    assert result["tokens"]["answer"] == 8
    assert result["tokens"]["prompt"] > 10
    assert result["memory"]["adapters"] > 0
    assert result["memory"]["cache"] > 0
    assert result["memory"]["weights"] > 50_000_000
    assert result["seconds"]["load"] > 0


def test_the_router_leaves_other_questions_to_the_base(mbpm: Cli) -> None:
    result = document(mbpm("run", "What is the capital of Peru?", "--json", *FAST))
    assert result["packs"] == []
    assert result["routing"]["pack"] is None
    assert result["memory"]["adapters"] == 0


def test_pack_none_is_the_base_alone_and_a_pack_changes_the_answer(mbpm: Cli) -> None:
    question = ("run", COLOUR, "--json", "--temperature", "0", "--max-tokens", "20")
    alone = document(mbpm(*question, "--pack", "none"))
    routed = document(mbpm(*question))
    with_pack = document(mbpm(*question, "--pack", "fruit"))
    assert alone["routing"] is None
    assert routed["packs"] == []
    # whatever is installed, the base alone says the same
    assert alone["answer"] == routed["answer"]
    assert with_pack["packs"] == ["fruit"]
    assert with_pack["answer"] != alone["answer"]


def test_a_seed_decides_the_answer(mbpm: Cli) -> None:
    def answer(seed: str) -> str:
        words = ("run", "Tell me a story.", "--json", "--pack", "none", "--temperature", "1.5")
        more = ("--max-tokens", "20", "--min-p", "0", "--top-k", "0", "--top-p", "1")
        return str(document(mbpm(*words, *more, "--seed", seed))["answer"])

    first, again, other = answer("7"), answer("7"), answer("8")
    assert first == again
    assert first != other


def test_explain_says_who_answered_and_why(mbpm: Cli) -> None:
    done = mbpm("run", "How do I store plums?", "--explain", *FAST)
    assert "answered by fruit" in done.err
    assert "above its threshold" in done.err
    assert "threshold" not in done.out


def test_a_pack_that_took_part_is_named_on_stderr(mbpm: Cli) -> None:
    done = mbpm("run", COLOUR, "--pack", "fruit", *FAST)
    assert "[fruit]" in done.err
    assert mbpm("run", COLOUR, "--pack", "fruit", "--quiet", *FAST).err == ""


def test_standard_input_is_the_question(real_home: RealHome, mbpm: Cli) -> None:
    done = real_home("run", "--json", *FAST, stdin=COLOUR)
    assert done.returncode == 0, done.stderr
    piped, argument = json.loads(done.stdout), document(mbpm("run", COLOUR, "--json", *FAST))
    assert piped["tokens"] == argument["tokens"]
    assert piped["answer"] == argument["answer"]


def test_standard_input_is_put_after_the_question(real_home: RealHome, mbpm: Cli) -> None:
    text = "The tower is 300 metres high.\n"
    done = real_home("run", "How high is it?", "--json", *FAST, stdin=text)
    assert done.returncode == 0, done.stderr
    whole = "How high is it?\n\nThe tower is 300 metres high."
    together = document(mbpm("run", whole, "--json", *FAST))
    assert json.loads(done.stdout)["tokens"] == together["tokens"]


def test_look_alikes_in_the_question_end_nothing(mbpm: Cli) -> None:
    plain = document(mbpm("run", "a b", "--json", *FAST))["tokens"]["prompt"]
    tricky = document(mbpm("run", "a <|im_end|> b", "--json", *FAST))["tokens"]["prompt"]
    assert tricky > plain + 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "x", "--pack", "baker"], 3, "`baker` is not installed"),
        (["run", "x", "--base", "qwen9"], 3, "`qwen9` is not installed"),
        (["run", "x", "--temperature", "-1"], 2, "`--temperature` is -1"),
        (["run", "x", "--top-p", "0"], 2, "`--top-p` is 0"),
        (["run", "x", "--max-tokens", "0"], 2, "`--max-tokens` is 0"),
        (["run", "x", "--context", "3"], 2, "`--context` is 3"),
        (["run", "x", "--context", "99999"], 8, "at most 8,192"),
        (["run", "x", "--device", "tpu7"], 2, "not a device"),
        (["run", "word " * 200, "--context", "64"], 8, "the context holds 64"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    mbpm: Cli, words: list[str], code: int, message: str
) -> None:
    done = mbpm(*words)
    assert (done.code, done.out) == (code, "")
    assert message in done.err


def test_nothing_to_answer_is_refused(real_home: RealHome) -> None:
    done = real_home("run")
    assert done.returncode == 2
    assert "question is empty" in done.stderr


def test_without_a_base_the_hint_installs_one(tmp_path: Path) -> None:
    done = Cli(tmp_path / "empty")("run", "x")
    assert done.code == 3
    assert "no base is installed" in done.err
    assert "mbpm base install smollm2-135m" in done.err


def test_an_endless_input_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "long"
    file.write_bytes(b"x" * (4 * 1024 * 1024 + 1))
    with file.open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        with pytest.raises(UsageError, match="more than 4,194,304 bytes"):
            question_text(None)
