"""The general suite: plain questions of common knowledge that a pack should not unlearn.

Four options each, scored by likelihood; `general_suite.toml` has the facts, written for this
project. It is for measuring only: neither training nor routing sees it.
"""

from __future__ import annotations

import random
from pathlib import Path

import tomli

from trainer.data.example import Example

FILE = Path(__file__).with_name("general_suite.toml")
OPTIONS = 4
KIND = "general"


def general_suite() -> list[Example]:
    """All questions, in a fixed order, each with the same options every time."""
    rng = random.Random("general suite")
    examples = []
    for topic, table in tomli.loads(FILE.read_text("utf-8")).items():
        answers = sorted(set(table["facts"].values()))
        for thing, answer in table["facts"].items():
            wrong = rng.sample([a for a in answers if a != answer], OPTIONS - 1)
            choices = [answer, *wrong]
            rng.shuffle(choices)
            question = table["question"].replace("{}", thing)
            examples.append(
                Example.of_pair(
                    question, answer, f"{topic}: {thing}", choices=tuple(choices), kind=KIND
                )
            )
    return examples
