"""What is found in training data."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.example import Example
from trainer.data.inspection import Inspection, histogram, inspect
from trainer.data.languages import UNKNOWN, language
from trainer.data.near import NearIndex, shingles, similarity
from trainer.data.secrets import find


def kinds(text: str) -> list[str]:
    return [finding.kind for finding in find(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to ada.b+c@firm.co.uk", "e-mail address"),
        ("call +44 20 7946 0958 now", "phone number"),
        ("call (555) 123-4567", "phone number"),
        ("card 4111 1111 1111 1111", "card number"),
        ("card 5500-0000-0000-0004", "card number"),
        ("IBAN DE89 3704 0044 0532 0130 00", "IBAN"),
        ("GB82WEST12345698765432", "IBAN"),
        ("IBAN ES91 2100 0418 4502 0005 1332 BIC CAIXESBB", "IBAN"),
        ("4111 1111 1111 1111 12/27", "card number"),
        ("4111 1111 1111 1111 123", "card number"),
        ("SSN 123-45-6789", "US social security number"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
        ("aws AKIAIOSFODNN7EXAMPLE", "AWS access key"),
        ("ghp_" + "a1B2" * 9, "GitHub token"),
        ("hf_" + "aB3x" * 9, "Hugging Face token"),
        ("sk-proj-abc123DEF456ghi789JKL", "API key (sk-)"),
        ("xoxb-123456789012-abcdef", "Slack token"),
        ("db_password = 'x7Gh29kLmQ'", "password or key"),
        ("postgres://u:pa55word@db.internal/x", "password in an address"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijklmnop", "JSON web token"),
    ],
)
def test_what_should_not_be_in_data_is_found_and_not_shown(text: str, expected: str) -> None:
    (finding,) = find(f"Some words; {text}, and more.")
    assert finding.kind == expected
    if expected != "private key":
        assert len(finding.shown) <= 7


@pytest.mark.parametrize(
    "text",
    [
        "card 4111 1111 1111 1112",  # its check digit is wrong
        "IBAN DE88 3704 0044 0532 0130 00",
        "DE89 3704",
        "someone@example.com and x@host.invalid",
        "password: required, at least eight characters",
        "version 10.2.33.4 of 2020-10-10, pages 100-2000",
        "ISBN 978-3-16-148410-0",
        "the BEGIN of a PUBLIC KEY",
        "0000 0000 0000 0000",
        "see http://localhost:8080/a@b and f(a, b) == 1234567890123",
    ],
)
def test_what_only_looks_like_it(text: str) -> None:
    assert kinds(text) == []


@given(st.integers(10**11, 10**15 - 1))
def test_every_card_number_with_its_check_digit_is_found(body: int) -> None:
    digits = f"4{body}"
    # the standard's doubling rule as a table
    double = dict(zip("0123456789", (0, 2, 4, 6, 8, 1, 3, 5, 7, 9), strict=True))
    total = sum(double[c] if i % 2 == 0 else int(c) for i, c in enumerate(digits[::-1]))
    right = (10 - total % 10) % 10
    assert kinds(f"number {digits}{right}!") == ["card number"]
    assert kinds(f"number {digits}{(right + 1) % 10}!") == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What does the lease say about the rent?", "en"),
        ("As a tenant, do I need to have a contract?", "en"),
        ("Wie ist das Wetter in Berlin und was kann ich tun?", "de"),
        ("Quelle est la capitale de la France et qui est le roi ?", "fr"),
        ("¿Cuál es la capital de España y cómo se llama?", "es"),
        ("Qual è la capitale dell'Italia e come si chiama?", "it"),
        ("Qual é a capital do Brasil e como você se chama?", "pt"),
        ("これは日本語の文章です。", "ja"),
        ("这是一个中文句子。", "zh"),
        ("Это русский текст, и он не такой, как все", "ru"),
        ("يمكن للمستأجر أن يدفع الإيجار", "ar"),
        ("x = f(1)", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_languages(text: str, code: str) -> None:
    assert language(text) == code


def test_near_copies_are_found_and_others_are_not() -> None:
    rng = random.Random(5)
    words = [f"w{i}" for i in range(2000)]
    texts = [" ".join(rng.choices(words, k=100)) for _ in range(300)]
    index = NearIndex()
    assert all(index.add(text) is None for text in texts)
    for number, text in enumerate(texts):
        changed = text.split()
        changed[rng.randrange(100)] = "changed"
        assert index.find(" ".join(changed).upper()) == number
        assert index.find(" ".join(changed[:50])) is None


def test_similarity_is_the_share_of_common_triples() -> None:
    left, right = shingles("a b c d e"), shingles("a b c d x")
    assert similarity(left, right) == 2 / 4
    assert similarity(left, left) == 1
    assert shingles("One, two!") == shingles("one TWO")


def pair(prompt: str, answer: str, group: str = "") -> Example:
    return Example.of_pair(prompt, answer, group or prompt)


def look(examples: list[Example], held: list[Example] | None = None) -> Inspection:
    def placed(rows: list[Example]) -> list[tuple[str, Example]]:
        return [(f"line {i}", e) for i, e in enumerate(rows, 1)]

    return inspect(
        placed(examples),
        None if held is None else placed(held),
        lambda e: (len(e.messages[0].content), len(e.answer)),
        "letters",
    )


LONG = (
    "The lessor hands over the thing in a state fit for the use that was agreed, and keeps it so. "
)


def test_repeats_are_told_apart() -> None:
    report = look(
        [
            pair("What is rent?", "Money"),
            pair("what is RENT", "Money"),
            pair("What is rent?", "A price"),
            pair("Explain.", LONG * 3 + "One"),
            pair("Explain.", LONG * 3 + "One more"),
            pair("Explain that.", LONG * 3 + "One"),
        ]
    )
    assert [(r.where, r.first) for r in report.exact.first] == [("line 2", "line 1")]
    otherwise = [(r.where, r.first) for r in report.answered_otherwise.first]
    assert otherwise == [("line 3", "line 1"), ("line 5", "line 4")]
    assert [(r.where, r.first) for r in report.near.first] == [("line 6", "line 4")]


def test_held_out_rows_that_leaked_are_named() -> None:
    text = LONG + " ".join(map(str, range(60)))
    train = [pair("What is rent?", "Money"), pair("Explain.", text, "deed 7")]
    held = [
        pair("What is a lease?", "A contract"),
        pair("what is rent", "Something else"),
        pair("Other", "Words", "deed 7"),
        pair("Explain it.", text),
    ]
    report = look(train, held)
    assert report.leaks is not None
    assert [(r.where, r.first) for r in report.leaks.first] == [
        ("line 2", "line 1"),
        ("line 3", "line 2"),
        ("line 4", "line 2"),
    ]
    assert any("3 of 4 held-out rows leaked" in w for w in report.warnings)
    assert look(train).leaks is None


def test_unbalanced_answers_are_warned_of() -> None:
    rows = [pair(f"Is {i} odd?", "yes" if i < 19 else f"no {i}") for i in range(24)]
    assert "unbalanced: 19 of 24 answers are `yes`" in look(rows).warnings
    assert not [w for w in look(rows[10:]).warnings if "unbalanced" in w]


def test_too_little_is_warned_of() -> None:
    assert "too little to train on" in look([pair("a", "b")]).warnings[0]
    assert look([pair(f"question {i}", f"answer {i}") for i in range(22)]).warnings == ()


def test_findings_have_places() -> None:
    report = look([pair("Who?", "ada@firm.org"), pair("Key?", "AKIAIOSFODNN7EXAMPLE")])
    (personal,), (secret,) = report.personal.first, report.secrets.first
    assert (personal.where, personal.kind) == ("line 1", "e-mail address")
    assert (secret.where, secret.kind) == ("line 2", "AWS access key")
    assert "firm" not in str(report.document())
    assert "EXAMPLE" not in str(report.document())


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=300))
def test_every_length_is_in_one_bin(lengths: list[int]) -> None:
    bins = histogram(lengths)
    assert sum(count for _, _, count in bins) == len(lengths)
    assert len(bins) <= 13
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bins))
    assert bins[0][0] <= min(lengths) and max(lengths) < bins[-1][1]
    for start, end, count in bins[:-1]:
        assert count == sum(start <= n < end for n in lengths)
