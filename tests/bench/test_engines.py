"""What the engine benchmarks ask of an engine, on a base of a few kilobytes; nothing is timed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench import held_out
from bench.engines import open_engine
from bench.inference import Setting, packs
from bench.llama_logits import _unpacked
from bench.peer_files import FOLDER_VARIABLE, four_bit_files
from bench.quality import Score, _at_once, _one_by_one
from bench.rounded_cache import RoundedCache, hadamard
from bench.worker import Jobs
from runtime.engine import ActiveAdapter
from runtime.torch_engine import TorchEngine
from specs.base_card import BaseCard
from specs.errors import IntegrityError
from tests.support.tiny_base import write_tiny_base


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_base(folder)
    return folder


@pytest.fixture(autouse=True)
def _known_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.worker.prompt_tokens", lambda n: [20 + i % 50 for i in range(n)])


def card(tiny: Path) -> BaseCard:
    return Setting(tiny, "torch", 1).card


def test_everything_the_worker_is_asked(tiny: Path) -> None:
    with packs(card(tiny), 3) as (*two, third):
        jobs = Jobs(tiny, "torch", 1, two)
        alone = jobs.generate(prompt=8, new=4)
        assert len(alone["tokens"]) == 4
        assert alone["decode"] > 0
        assert jobs.generate(prompt=8, new=4, pack=0)["prefill"] > 0
        seconds = jobs.load(folder=str(third), cold=True)["seconds"]
        assert seconds > 0
        assert jobs.engine.memory()["adapters"] > 0
        assert jobs.switch(prompt=8, steps=1)["other"] > 0
        jobs.rows(packs=[0, 1, 0], prompt=4, steps=2)
        assert 0 < jobs.bytes_per_token <= jobs.engine.memory()["weights"]


def test_a_random_pack_attaches_and_acts(tiny: Path) -> None:
    engine = open_engine("torch", tiny, 1)
    with packs(card(tiny), 2) as folders:
        slots = [engine.load_adapter(folder) for folder in folders]

    def logits(*adapters: ActiveAdapter) -> np.ndarray:
        found = engine.forward(engine.new_cache(4), [20, 21, 22], adapters).logits
        assert found is not None
        return found

    base, one, other = logits(), *(logits(ActiveAdapter(slot)) for slot in slots)
    assert np.abs(one - base).max() > 1e-4
    assert np.abs(one - other).max() > 1e-4


def test_scores_by_hand() -> None:
    reference = np.log(np.float32([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]))
    found = np.log(np.float32([[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]]))
    exact, score = Score(), Score()
    exact.add(reference, reference, [0, 2])
    score.add(reference, found, [0, 2])
    figures = score.figures(exact)
    # 0.5 ln 2 - 0.25 ln 2 in the first row, nothing in the second
    assert figures["mean KL"][0] == pytest.approx(1e3 * 0.25 * np.log(2) / 2, rel=1e-5)
    assert figures["same likeliest token"][0] == 50
    assert figures["perplexity"][0] == pytest.approx((0.25 * 0.6) ** -0.5, rel=1e-5)
    above = figures["perplexity above the reference"][0]
    assert above == pytest.approx(100 * (2**0.5 - 1), rel=1e-5)
    assert exact.figures(exact)["mean KL"][0] == 0


def test_reading_at_once_and_token_by_token_agree(tiny: Path) -> None:
    engine = open_engine("torch", tiny, 1, "float32")
    piece = [20 + i for i in range(32)]
    at_once, one_by_one = _at_once(engine, piece), _one_by_one(engine, piece)
    assert at_once.shape == (15, engine.config.vocab_size)
    np.testing.assert_allclose(at_once, one_by_one, atol=1e-4)
    np.testing.assert_allclose(np.exp(at_once).sum(axis=-1), 1, atol=1e-5)


def test_rounded_keys_and_values_change_little_but_something(tiny: Path) -> None:
    engine = open_engine("torch", tiny, 1, "float32")
    assert isinstance(engine, TorchEngine)
    piece = [20 + i for i in range(32)]
    exact = _at_once(engine, piece)
    eight, sixteen = (
        np.abs(_at_once(engine, piece, RoundedCache(engine, 32, kind)) - exact).max()
        for kind in ("int8", "float16")
    )
    assert 0 < sixteen < eight < 0.5


def test_hadamard_turns_and_turns_back() -> None:
    turn = hadamard(64)
    torch.testing.assert_close(turn @ turn, torch.eye(64))


def test_log_probabilities_as_llama_cpp_writes_them() -> None:
    head = np.float32([[0.5, -20.0]]).view(np.uint16)
    rows = np.concatenate([head, np.uint16([[0, 40, 7, 0]])], axis=1)
    np.testing.assert_array_equal(_unpacked(rows, 3), np.float32([[-20.0, 0.0, -16.5]]))


def test_another_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "algorithms-1.0.1-py3-none-any.whl").write_bytes(b"another")
    with pytest.raises(IntegrityError, match="not the wheel"):
        held_out._wheel("algorithms==1.0.1", held_out.WHEELS["algorithms==1.0.1"])


def test_no_quantiser_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr("bench.peer_files.llama_tool", lambda name: None)
    assert four_bit_files(tmp_path / "base" / "weights.gguf") == {}
