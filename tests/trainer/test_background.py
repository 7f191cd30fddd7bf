"""The bundled background prompts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import trainer.data
from trainer.data.example import normalise
from trainer.data.make_background import SPECIALIST

FILE = Path(trainer.data.__file__).parent / "background.jsonl"
PROMPTS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def test_the_file_is_small_varied_and_without_duplicates() -> None:
    assert FILE.stat().st_size <= 300_000
    assert len(PROMPTS) >= 1500
    categories = Counter(p["category"] for p in PROMPTS)
    assert len(categories) >= 10
    assert max(categories.values()) < len(PROMPTS) / 4
    assert len({normalise(p["prompt"]) or p["prompt"] for p in PROMPTS}) >= len(PROMPTS) - 2


def test_every_prompt_has_text_and_a_documented_source() -> None:
    readme = (FILE.parent / "README.md").read_text(encoding="utf-8")
    for prompt in PROMPTS:
        assert set(prompt) == {"prompt", "category", "source"}
        assert prompt["prompt"].strip()
        assert f"`{prompt['source']}`" in readme
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in readme


def test_no_prompt_taken_from_elsewhere_is_specialist_ground() -> None:
    taken = [p["prompt"] for p in PROMPTS if not p["source"].startswith("own")]
    assert not [p for p in taken if SPECIALIST.search(p)]
