"""Questions made from templates."""

from __future__ import annotations

import pytest

from specs.errors import UsageError
from trainer.data.natural_questions import OTHER, domains, natural_questions


@pytest.mark.parametrize("domain", [*domains(), OTHER])
def test_questions_differ_and_a_seed_decides_them(domain: str) -> None:
    questions = natural_questions(domain, 500, 1)
    assert len(set(questions)) == 500
    assert natural_questions(domain, 500, 1) == questions
    assert natural_questions(domain, 500, 2) != questions
    assert not any("{" in q for q in questions)


def test_no_question_is_of_two_domains() -> None:
    seen: set[str] = set()
    for domain in [*domains(), OTHER]:
        questions = {q.lower() for q in natural_questions(domain, 500, 1)}
        assert not seen & questions
        seen |= questions


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(UsageError, match="no questions of `cookery`"):
        natural_questions("cookery", 5, 1)
    with pytest.raises(UsageError, match="fewer than 1000000"):
        natural_questions(OTHER, 1_000_000, 1)
