"""What a pack changes where it should change nothing, on a base of random weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from runtime.chat_format import ChatFormat
from runtime.engine import ActiveAdapter
from runtime.tokenizer import Tokenizer
from runtime.torch_engine import TorchEngine
from specs.base_card import WEIGHTS_FILE
from tests.support.adapters import random_adapter, write_pack
from tests.support.tiny_base import few_general_prompts, write_tiny_base
from trainer.data.general_suite import OPTIONS, general_suite
from trainer.evaluate import Setting
from trainer.off_domain import base_logits, off_domain
from trainer.scoring import Tick, unwatched

PROMPTS = [f"What is {word}?" for word in ("a lamp", "rain", "Peru", "a fugue", "seven", "salt")]


def watch(text: str, rows: int) -> Tick:
    return unwatched


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    base = tmp_path_factory.mktemp("base")
    write_tiny_base(base)
    tokenizer = Tokenizer.from_gguf(base / WEIGHTS_FILE)
    chat = ChatFormat.from_gguf(base / WEIGHTS_FILE, tokenizer)
    with few_general_prompts():
        yield Setting(TorchEngine(base, device="cpu"), tokenizer, chat, ((),), "answer", 128)


def with_pack(alone: Setting, folder: Path) -> Setting:
    card = alone.engine.card  # type: ignore[attr-defined]
    pack = write_pack(folder / "p", card, random_adapter(card, 4, 0), 4, 8.0, "answer")
    slot = alone.engine.load_adapter(pack)
    return replace(alone, systems=((), (ActiveAdapter(slot),)))


def takes(*taken: str) -> object:
    def router(prompts: Sequence[str]) -> npt.NDArray[np.bool_]:
        return np.array([p in taken for p in prompts])

    return router


def test_the_router_decides_how_much_of_the_harm_is_done(alone: Setting, tmp_path: Path) -> None:
    before = base_logits(alone, PROMPTS)
    setting = with_pack(alone, tmp_path)
    nobody, some, everyone = (
        off_domain(setting, PROMPTS, before, takes(*who), watch)  # type: ignore[arg-type]
        for who in ((), PROMPTS[:2], PROMPTS)
    )
    assert nobody.identical
    assert (nobody.taken, some.taken, everyone.taken) == (0, 2, 6)
    assert nobody.routed.mean == nobody.routed.p99 == 0.0
    assert nobody.suite_routed.gain == nobody.suite_routed.gain_low == 0.0
    assert 0 < some.routed.mean < everyone.routed.mean
    assert everyone.routed == everyone.active == nobody.active
    assert everyone.active.mean <= everyone.active.p99
    assert everyone.prompts == 6


def test_a_base_that_says_something_else_is_found_out(alone: Setting, tmp_path: Path) -> None:
    before = base_logits(alone, PROMPTS)
    before[1][0, 0] = np.nextafter(before[1][0, 0], np.float32(np.inf))
    setting = with_pack(alone, tmp_path)
    assert not off_domain(setting, PROMPTS, before, takes(), watch).identical  # type: ignore[arg-type]


def test_the_general_suite_is_sound() -> None:
    suite = general_suite()
    assert general_suite() == suite
    assert len({e.group for e in suite}) == len(suite) >= 150
    for example in suite:
        assert len(set(example.choices)) == OPTIONS
        assert example.answer in example.choices
        assert "{}" not in example.messages[0].content
    places = [e.choices.index(e.answer) for e in suite]
    assert max(np.bincount(places)) < len(suite) / 2, "the right option must not have a place"
