"""Questions of a domain as people type them, made from templates; see natural_questions.toml."""

from __future__ import annotations

import random
import re
from pathlib import Path

import tomli

from specs.errors import UsageError

FILE = Path(__file__).with_name("natural_questions.toml")
OTHER = "other"
"""The domain of everything that is no pack's ground."""
_SLOT = re.compile(r"\{(\w+)\}")


def domains() -> list[str]:
    """The domains there are questions of, without `other`."""
    return sorted(set(tomli.loads(FILE.read_text("utf-8"))) - {OTHER})


def natural_questions(domain: str, count: int, seed: int) -> list[str]:
    """`count` different questions, every template used about equally often.

    Raises:
        UsageError: no questions of that domain are known, or not so many different ones.
    """
    table = tomli.loads(FILE.read_text("utf-8"))
    if domain not in table:
        raise UsageError(f"no questions of `{domain}` (there are {', '.join(sorted(table))})")
    words, rng = table[domain], random.Random(f"{seed}:{domain}")
    questions: dict[str, None] = {}
    for _ in range(100):
        templates = list(words["templates"])
        rng.shuffle(templates)
        for template in templates:
            filled = _SLOT.sub(lambda slot: rng.choice(words[slot[1]]), template)
            questions.setdefault(filled[0].upper() + filled[1:] if rng.random() < 0.5 else filled)
            if len(questions) == count:
                return list(questions)
    raise UsageError(f"fewer than {count} different questions of `{domain}`")
