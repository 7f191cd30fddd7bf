"""What is measured on rows, with a real engine on random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import trainer.evaluate
from runtime.chat_format import ChatFormat
from runtime.engine import ActiveAdapter
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import WEIGHTS_FILE
from specs.errors import UsageError
from specs.manifest import Activation
from tests.support.adapters import random_adapter, write_pack
from tests.support.tiny_base import write_tiny_base
from trainer.data.example import Example
from trainer.evaluate import (
    Setting,
    answers,
    choice_accuracy,
    choices,
    code_of,
    code_passes,
    evaluate,
    options,
    sample,
)
from trainer.sandbox import unavailable
from trainer.scoring import Scores, Tick, divergence, score, unwatched


def watch(text: str, rows: int) -> Tick:
    return unwatched


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_tiny_base(folder)
    return folder


def setting(base: Path, folder: Path, activation: Activation) -> Setting:
    """The base in float32, and beside it a pack of random numbers."""
    weights = base / WEIGHTS_FILE
    tokenizer = Tokenizer.from_gguf(weights)
    engine = TorchEngine(base, device="cpu", precision="float32")
    card = engine.card
    adapter = random_adapter(card, 4, 0)
    slot = engine.load_adapter(write_pack(folder / "p", card, adapter, 4, 8.0, activation))
    chat = ChatFormat.from_gguf(weights, tokenizer)
    return Setting(engine, tokenizer, chat, ((), (ActiveAdapter(slot),)), activation, 128)


def pair(prompt: str, answer: str, *choices: str, group: str = "", kind: str = "") -> Example:
    return Example.of_pair(prompt, answer, group or prompt, choices=choices, kind=kind)


def logits_alone(made: Setting, tokens: Sequence[int], start: int, which: int) -> torch.Tensor:
    """Log-probabilities of a row that nothing was read before, [tokens, vocabulary]."""
    cache = made.engine.new_cache(len(tokens))
    parts = []
    for begin, end, active in ((0, start, ()), (start, len(tokens), made.systems[which])):
        if begin < end:
            found = made.engine.forward(cache, tokens[begin:end], active, logits="all").logits
            assert found is not None
            parts.append(torch.from_numpy(found))
    return torch.log_softmax(torch.cat(parts).double(), -1)


@pytest.mark.parametrize("activation", ["answer", "full"])
def test_scores_are_what_the_engine_says_of_each_row_alone(
    base: Path, tmp_path: Path, activation: Activation
) -> None:
    made = setting(base, tmp_path, activation)
    examples = [pair(f"ask {i % 3}", "x" * (1 + i)) for i in (5, 0, 4, 1, 3, 2)]
    examples.append(pair("a question of its own", "y" * 90))  # more than one piece
    rows = [made.row(e) for e in examples]
    assert all(r is not None for r in rows)
    kept = [r for r in rows if r is not None]
    ticks: list[int] = []
    found = score(made.engine, kept, made.systems, ticks.append)
    kl = divergence(made.engine, kept, made.systems[1])
    assert sum(ticks) == len(kept)
    for i, row in enumerate(kept):
        base_says, pack_says = (
            logits_alone(made, row.tokens, row.start, which)[row.answer - 1 : -1]
            for which in (0, 1)
        )
        answer = torch.tensor(row.tokens[row.answer :])[:, None]
        for system, says in zip(found, (base_says, pack_says), strict=True):
            assert system.nats[i] == pytest.approx(float(-says.gather(1, answer).sum()), rel=1e-4)
            assert system.tokens[i] == len(answer)
        expected = torch.nn.functional.kl_div(
            pack_says, base_says, reduction="none", log_target=True
        ).sum(-1)
        assert kl[i] == pytest.approx(expected.numpy(), rel=1e-3, abs=1e-6)


def test_a_prompt_is_read_once_for_base_and_pack_and_all_options(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = setting(base, tmp_path, "answer")
    laid = options(made, [pair("which one of these is it?", "a", "a", "b", "c", "d")])
    read: list[int] = []
    forward = TorchEngine.forward

    def counted(self, cache, tokens, *args, **more):  # type: ignore[no-untyped-def]
        read.append(len(tokens))
        return forward(self, cache, tokens, *args, **more)

    monkeypatch.setattr(TorchEngine, "forward", counted)
    score(made.engine, laid.rows, made.systems)
    prompt = laid.rows[0].start
    header = laid.rows[0].answer - 1 - prompt
    options_alone = sum(len(r.tokens) - r.answer for r in laid.rows)
    assert sum(read) <= prompt + len(made.systems) * (header + options_alone)
    assert len(read) <= 1 + len(made.systems) * (1 + len(laid.rows))


def test_choice_accuracy_takes_the_likeliest_option_per_token(base: Path, tmp_path: Path) -> None:
    made = setting(base, tmp_path, "answer")
    examples = [pair("q1", "a", "a", "b"), pair("q2", "d", "c", "d", "e", "f")]
    laid = options(made, examples)
    assert list(laid.owner) == [0, 0, 1, 1, 1, 1]
    assert list(laid.right) == [True, False, False, True, False, False]
    # per token the first is right although its sum is larger: 8 / 4 against 3 / 1
    tokens = np.array([4.0, 1, 1, 1, 1, 1])
    scores = [Scores(np.array([first, 3, 5, 1, 5, 5]), tokens) for first in (8.0, 16.0)]
    metric = choice_accuracy("exam", laid, scores).metric(0)
    assert (metric.base, metric.pack, metric.rows) == (1.0, 0.5, 2)
    assert metric.gain == -0.5
    assert metric.baseline == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_where_all_choose_from_the_same_the_commonest_is_the_baseline(
    base: Path, tmp_path: Path
) -> None:
    made = setting(base, tmp_path, "answer")
    asked = [pair(f"q{i}", "yes" if i < 7 else "no", "yes", "no") for i in range(10)]
    found = choices(made, "yn", asked, watch)
    assert found is not None
    assert found.baseline == 0.7


def test_answers_are_what_the_engine_would_write(base: Path, tmp_path: Path) -> None:
    made = setting(base, tmp_path, "answer")
    rows = [r for i in range(3) if (r := made.row(pair(f"say {i}", "z"))) is not None]
    found = answers(made, rows, 6, unwatched)
    for which, texts in enumerate(found):
        for row, text in zip(rows, texts, strict=True):
            tokens = list(row.tokens[: row.answer])
            for _ in range(6):
                token = int(logits_alone(made, tokens, row.start, which)[-1].argmax())
                if token in made.tokenizer.eos_ids:
                    break
                tokens.append(token)
            assert text == made.tokenizer.decode(tokens[row.answer :]).strip()


def test_what_rows_allow_is_measured(base: Path, tmp_path: Path) -> None:
    made = setting(base, tmp_path, "answer")
    rows = [pair(f"term {i}?", f"t{i}", f"t{i}", "other", kind="terms") for i in range(4)]
    rows += [pair(f"explain {i}", "a long text " * 5, kind="texts") for i in range(3)]
    rows += [pair("only one", "x", "x", "y", kind="single")]
    found = evaluate(made, rows, watch)
    assert [m.name for m in found.found] == [
        "response_perplexity", "choice_accuracy_terms", "exact_match_terms",
    ]  # fmt: skip
    assert [n.split(" ")[0] for n in found.notes] == [
        "choice_accuracy_single",
        "exact_match_single",
    ]
    assert found.found[0].metric(0).rows == 8


def test_no_rows_are_an_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no held-out rows"):
        evaluate(setting(base, tmp_path, "answer"), [], watch)


def test_rows_that_are_too_long_are_told(base: Path, tmp_path: Path) -> None:
    made = setting(base, tmp_path, "answer")
    long = [pair(f"q{i}", "word " * 60) for i in range(3)]
    with pytest.raises(UsageError, match="every held-out answer is longer than 128 tokens"):
        evaluate(made, long, watch)
    found = evaluate(made, [*long, pair("a", "b"), pair("c", "d")], watch)
    assert "3 of 5 held-out rows were left out" in found.notes[0]


def coding(made: Setting, monkeypatch: pytest.MonkeyPatch, texts: list[list[str]]) -> list[Example]:
    """Three tasks, to which base and pack are said to have written `texts`."""
    monkeypatch.setattr(trainer.evaluate, "answers", lambda *_: texts)
    return [
        Example.of_pair(f"Write f that returns {i}.", "…", str(i), tests=f"assert f() == {i}")
        for i in range(2)
    ]


def test_code_is_run_with_its_tests(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = replace(setting(base, tmp_path, "answer"), unsandboxed=unavailable() is not None)
    fenced = "Here it is:\n```python\ndef f():\n    return {}\n```\nIt returns a number."
    examples = coding(made, monkeypatch, [["f = lambda: 0", "no code"], [fenced.format(0)] * 2])
    order = sample(examples, 2, made.seed)
    found = code_passes(made, "tasks", examples, watch)
    assert found is not None
    expected = [e.messages[0].content.endswith("0.") for e in order]
    # the base's first text is for the first row drawn, whichever that is
    assert list(found.values[1]) == [float(x) for x in expected]
    assert list(found.values[0]) == [float(expected[0]), 0.0]
    assert found.name == "code_passes_tasks"


def test_code_that_cannot_be_shut_in_is_left_out_with_the_reason(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = setting(base, tmp_path, "answer")
    examples = coding(made, monkeypatch, [])
    monkeypatch.setattr(trainer.evaluate, "unavailable", lambda: "no Landlock here")
    assert code_passes(made, "tasks", examples, watch) is None
    monkeypatch.setattr(trainer.evaluate, "exact_match", lambda *_: None)
    assert evaluate(made, examples, watch).notes == (
        "code_passes_all was left out: no Landlock here.",
    )


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("x = 1", "x = 1"),
        ("Sure:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```\nx = 1\n```\n```\ny = 2\n```", "x = 1\n"),
        ("```py\nx = 1\ncut off", "x = 1\ncut off"),
    ],
)
def test_the_code_of_an_answer(answer: str, code: str) -> None:
    assert code_of(answer) == code
