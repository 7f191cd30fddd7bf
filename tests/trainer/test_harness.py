"""lm-evaluation-harness tasks on a base of random weights; skips where it is not installed."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from runtime.chat_format import ChatFormat
from runtime.engine import ActiveAdapter
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import WEIGHTS_FILE
from specs.errors import NotFoundError, UsageError
from tests.support.adapters import random_adapter, write_pack
from tests.support.tiny_base import write_tiny_base
from trainer import harness as module
from trainer.data.example import Example
from trainer.evaluate import Setting
from trainer.harness import harness
from trainer.scoring import Tick, score, unwatched

TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
WRITTEN = """
task: tiny_written
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
metric_list: [{metric: exact_match}]
"""


def watch(text: str, rows: int) -> Tick:
    return unwatched


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    base = tmp_path / "base"
    card = write_tiny_base(base)
    tokenizer = Tokenizer.from_gguf(base / WEIGHTS_FILE)
    engine = TorchEngine(base, device="cpu", precision="float32")
    chat = ChatFormat.from_gguf(base / WEIGHTS_FILE, tokenizer)
    slot = engine.load_adapter(
        write_pack(tmp_path / "p", card, random_adapter(card, 4, 0), 4, 8.0, "answer")
    )
    return Setting(engine, tokenizer, chat, ((), (ActiveAdapter(slot),)), "answer", 128)


def test_without_the_extra_it_says_how_to_get_it(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="not installed") as caught:
        harness(setting, ["arc_easy"], None, watch)
    assert "mbpm[lm-eval]" in str(caught.value.hint)


def test_a_task_of_choices_and_a_written_one(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [
        {"question": f"What is {i}?", "choices": ["a", "bb", "no"], "answer": i % 3}
        for i in range(6)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    files = []
    for name, text in (("choice", TASK), ("written", WRITTEN)):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(text.replace("DATA", str(data)), "utf-8")
    found = {m.name: m for m in harness(setting, [str(f) for f in files], None, watch)}
    assert set(found) == {"tiny_choice acc", "tiny_choice acc_norm", "tiny_written exact_match"}
    # by our own scoring of the same rows, the token that ends the turn left out
    for which in (0, 1):
        for number, row in enumerate(rows):
            encoded = [setting.row(Example.of_pair(row["question"], c, "")) for c in row["choices"]]
            cut = [replace(r, tokens=r.tokens[:-1]) for r in encoded if r is not None]
            (scores,) = score(setting.engine, cut, [setting.systems[which]])
            best = int(torch.tensor(scores.nats).argmin())
            assert found["tiny_choice acc"].values[which][number] == (best == row["answer"])
    limited = harness(setting, [str(files[0])], 3, watch)
    assert len(limited[0].weights) == 3
    metric = found["tiny_choice acc"].metric(0)
    assert metric.rows == 6
    assert metric.baseline == pytest.approx(1 / 3)
    assert found["tiny_written exact_match"].baseline is None


def test_a_metric_that_is_better_when_lower_is_left_out() -> None:
    run = [{"doc_id": i, "metrics": ["acc", "brier"], "acc": 1, "brier": 0.5} for i in range(3)]
    found = module._measured("t", [run, run], {"acc": True, "brier": False})
    assert [m.name for m in found] == ["t acc"]


def test_a_task_that_is_not_there(setting: Setting) -> None:
    pytest.importorskip("lm_eval")
    with pytest.raises(NotFoundError, match="no task `nothing_of_the_kind`"):
        harness(setting, ["nothing_of_the_kind"], None, watch)


def test_texts_are_scored_whole(setting: Setting) -> None:
    """Every token once, whatever the windows."""
    text = "the thin thing in the inn " * 20
    tokens = setting.tokenizer.encode(text)
    rows = module._windows(setting, text)
    assert [t for r in rows for t in r.tokens[1:]] == tokens
    assert all(len(r.tokens) <= 128 for r in rows)
    assert all(b.tokens[0] == a.tokens[-1] for a, b in itertools.pairwise(rows))
