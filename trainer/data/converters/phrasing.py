"""How a question may be put: templates shared by the converters and the background prompts.

The background asks about other things in these very same words, so that a router has to tell
domains apart by what is asked, not by the wording of a template.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

LETTERS = "ABCD"

MEANING = (
    "What does '{x}' mean?",
    'What does "{x}" mean?',
    "What is meant by {x}?",
    "Define {x}.",
    "Define: {x}",
    "{x}: what is it?",
    "What is {x}?",
    "Explain the term '{x}'.",
    "Please explain {x}.",
    "I came across the word '{x}'. What does it mean?",
    "Can you tell me what {x} is?",
    "Describe {x} in a sentence or two.",
)
"""Questions for a definition of `x`."""

TERM_FOR = (
    "Which of these terms means: {x}",
    "Which term fits this definition? {x}",
    "Which word is meant? {x}",
    "Choose the term for this description: {x}",
    "{x} What is this called?",
)
"""Questions for the term that a definition `x` belongs to; options follow."""


def pick(templates: Sequence[str], x: str, rng: random.Random) -> str:
    """A random template filled with `x`."""
    return rng.choice(templates).format(x=x)


def with_options(question: str, options: Sequence[str], rng: random.Random) -> str:
    """`question` followed by its options, listed in one of several ways people write them."""
    style = rng.randrange(5)
    if style == 0:
        lines = [f"{letter}. {o}" for letter, o in zip(LETTERS, options, strict=False)]
        return "\n".join([question, *lines])
    if style == 1:
        lines = [f"{letter}) {o}" for letter, o in zip(LETTERS, options, strict=False)]
        return "\n".join([question, *lines, "Answer with the text of the right option."])
    if style == 2:
        return "\n".join([question, "", "Options:", *(f"- {o}" for o in options)])
    if style == 3:
        return f"{question}\nChoose one: {'; '.join(options)}."
    lines = [f"({n}) {o}" for n, o in enumerate(options, 1)]
    return "\n".join([question, *lines])
