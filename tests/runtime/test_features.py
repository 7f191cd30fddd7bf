"""Pooling, and that the trainer's features are the session's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.chat_format import ChatFormat
from runtime.features import FREQUENT, features, pool
from runtime.load import load
from runtime.router import Decision, Router
from runtime.sampling import Sampling
from runtime.session import Session
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import WEIGHTS_FILE

QUESTIONS = ["What is a hinge?", "And now something else\n\nentirely, in two parts", ""]


def test_rare_tokens_count_more() -> None:
    hidden = np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]], dtype=np.float32)
    feature = pool(hidden, [0, int(FREQUENT) * 1000])
    assert feature.shape == (4,)
    assert feature[1] > 100 * feature[0] > 0
    assert feature[:2].sum() == pytest.approx(1)
    np.testing.assert_array_equal(feature[2:], [5, 5])


def test_a_message_without_tokens_is_its_end() -> None:
    np.testing.assert_array_equal(pool(np.ones((1, 3), np.float32), []), np.ones(6))


def test_a_session_routes_by_the_same_features_as_the_trainer(smollm2: Path) -> None:
    seen = []

    class Watching(Router):
        def decide(self, feature: np.ndarray) -> Decision:
            seen.append(feature)
            return Decision(None, ())

    engine = TorchEngine(smollm2, device="cpu", precision="float32")
    tokenizer = Tokenizer.from_gguf(smollm2 / WEIGHTS_FILE)
    chat = ChatFormat.from_gguf(smollm2 / WEIGHTS_FILE, tokenizer)
    base = type("Base", (), {"layer": 7})()
    session = Session(engine, tokenizer, chat, {}, Watching(base, {}), context=512)
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        list(session.answer(messages, Sampling(), max_tokens=2))
    np.testing.assert_allclose(
        np.stack(seen), features(engine, chat, QUESTIONS, 7), atol=1e-3, rtol=1e-3
    )


def test_a_loaded_base_says_what_it_was_loaded_from(smollm2: Path) -> None:
    loaded = load(smollm2, [], device="cpu")
    assert loaded.packs == {}
    assert loaded.router is None
    assert loaded.context == 4096
    assert loaded.card.name == "smollm2-135m"
