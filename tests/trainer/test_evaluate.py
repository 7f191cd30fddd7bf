"""Metrics against what can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.chat_format import ChatFormat
from runtime.engine import ActiveAdapter
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import WEIGHTS_FILE
from specs.manifest import Activation
from tests.support.adapters import random_adapter, write_pack
from tests.support.tiny_base import write_tiny_base
from trainer.batches import Row, encode_all
from trainer.config import TrainingConfig
from trainer.data.example import Example
from trainer.evaluate import ChoiceRows, Scores, choice_accuracy, choice_rows, perplexity, score


def row(group: str, length: int = 4) -> Row:
    return Row(tuple(range(length + 2)), 1, 2, group)


def scores(*nats: float, tokens: float = 4.0) -> Scores:
    return Scores(np.array(nats), np.full(len(nats), tokens))


def test_perplexity_is_the_exponential_of_the_mean_over_tokens() -> None:
    rows = [row("a"), row("b"), row("c")]
    metric = perplexity(rows, scores(4, 8, 12), scores(2, 4, 6), seed=0)
    assert metric.base == pytest.approx(np.exp(2))
    assert metric.pack == pytest.approx(np.exp(1))
    assert metric.gain == pytest.approx(np.exp(2) - np.exp(1))
    assert not metric.higher_is_better
    assert (metric.rows, metric.groups) == (3, 3)
    assert 0 < metric.gain_low <= metric.gain <= metric.gain_high


def test_the_interval_includes_no_gain_when_there_is_none() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(8, 1, 200)
    pack = base + rng.normal(0, 1, 200)
    rows = [row(str(i)) for i in range(200)]
    metric = perplexity(rows, scores(*base), scores(*pack), seed=0)
    assert metric.gain_low < 0 < metric.gain_high


def test_rows_of_one_group_count_as_one_in_the_interval() -> None:
    """The same ten numbers, once as ten groups and once repeated: repeats add no certainty."""
    rng = np.random.default_rng(1)
    base, pack = rng.normal(8, 1, 10), rng.normal(7, 1, 10)
    once = perplexity([row(str(i)) for i in range(10)], scores(*base), scores(*pack), 0)
    many = perplexity(
        [row(str(i)) for i in range(10)] * 20,
        scores(*np.tile(base, 20)),
        scores(*np.tile(pack, 20)),
        0,
    )
    assert many.groups == once.groups == 10
    assert many.gain_low == pytest.approx(once.gain_low, rel=1e-6)
    assert many.gain_high == pytest.approx(once.gain_high, rel=1e-6)


def test_choice_accuracy_takes_the_likeliest_option_per_token() -> None:
    rows = [row("q1")] * 2 + [row("q2")] * 4
    choices = ChoiceRows(
        rows,
        owner=np.array([0, 0, 1, 1, 1, 1]),
        right=np.array([True, False, False, True, False, False]),
        groups=["q1", "q2"],
    )
    # per token the first is right although its sum is larger: 8 / 4 against 3 / 1
    base = Scores(np.array([8.0, 3, 5, 1, 5, 5]), np.array([4.0, 1, 1, 1, 1, 1]))
    pack = Scores(np.array([16.0, 3, 5, 1, 5, 5]), np.array([4.0, 1, 1, 1, 1, 1]))
    metric = choice_accuracy("exam", choices, base, pack, seed=0)
    assert (metric.base, metric.pack, metric.rows) == (1.0, 0.5, 2)
    assert metric.gain == -0.5
    assert metric.baseline == pytest.approx((1 / 2 + 1 / 4) / 2)


@pytest.mark.parametrize("activation", ["answer", "full"])
def test_scores_are_what_the_engine_says_of_each_row_alone(
    tmp_path: Path, activation: Activation
) -> None:
    base = tmp_path / "base"
    card = write_tiny_base(base)
    weights = base / WEIGHTS_FILE
    tokenizer = Tokenizer.from_gguf(weights)
    chat = ChatFormat.from_gguf(weights, tokenizer)
    engine = TorchEngine(base, device="cpu", precision="float32")
    slot = engine.load_adapter(
        write_pack(tmp_path / "p", card, random_adapter(card, 4, 0), 4, 8.0, activation)
    )
    config = TrainingConfig(max_length=128, activation=activation)
    examples = [
        Example.of_pair(f"ask {i}", "x" * (1 + i), f"g{i}", choices=("x" * (1 + i), "no"))
        for i in range(6)
    ]
    rows = encode_all(examples, chat, config.activation, config.max_length)
    for adapters in ((), (ActiveAdapter(slot),)):
        found = score(engine, rows, adapters)
        for i, r in enumerate(rows):
            cache = engine.new_cache(len(r.tokens))
            start = r.start if adapters else 0
            if start:
                engine.forward(cache, r.tokens[:start], logits="none")
            logits = engine.forward(cache, r.tokens[start:], adapters, logits="all").logits
            assert logits is not None
            scores = torch.log_softmax(torch.from_numpy(logits).double(), -1)
            answer = torch.tensor(r.tokens[r.answer :])[:, None]
            expected = -scores[r.answer - start - 1 : -1].gather(1, answer).sum()
            assert found.nats[i] == pytest.approx(float(expected), rel=1e-4)
            assert found.tokens[i] == i + 2  # the letters and the end of the turn
    options = choice_rows(examples, chat, config)
    assert len(options.rows) == 12
    assert options.right.sum() == 6
    assert options.groups == [e.group for e in examples]
