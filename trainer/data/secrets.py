"""What should not be in training data: credentials, and data about persons.

A model may say its training data again word for word, so whatever is found here may be said to
strangers. Found by form, and by check digits where the form has them; what is not found is no proof
that nothing is there. The forms of tokens are those their issuers publish (as gitleaks and
detect-secrets collect them); IBAN: ISO 13616; card numbers: ISO/IEC 7812-1.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Sort = Literal["secret", "personal"]


@dataclass(frozen=True)
class Finding:
    """One thing found in a text."""

    sort: Sort
    kind: str
    """Such as `e-mail address`."""
    shown: str
    """Its beginning; never the whole of it."""


def _luhn(text: str) -> bool:
    """The check digit of ISO/IEC 7812-1, for lengths and first digits that are issued."""
    digits = [int(c) for c in text if c.isdigit()]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6) or len(set(digits)) < 2:
        return False
    doubled = [d if i % 2 else (2 * d - 9 if d > 4 else 2 * d) for i, d in _odd(digits)]
    return sum(doubled) % 10 == 0


def _odd(digits: list[int]) -> Iterator[tuple[int, int]]:
    """Digits with their parity counted from the right: the last one has 1."""
    for place, digit in enumerate(reversed(digits)):
        yield (place + 1) % 2, digit


_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AT": 20, "BE": 16, "BG": 22, "BR": 29, "CH": 21, "CY": 28, "CZ": 24,
    "DE": 22, "DK": 18, "EE": 20, "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21,
    "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27, "LI": 21, "LT": 20, "LU": 20, "LV": 21,
    "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "SA": 24, "SE": 24,
    "SI": 19, "SK": 24, "SM": 27, "TR": 26, "UA": 29,
}  # fmt: skip


def _iban(text: str) -> bool:
    """Length of its country, and remainder 1 modulo 97 (ISO 13616, ISO/IEC 7064)."""
    text = re.sub(r"\s", "", text)
    if _IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def _begins(check: Callable[[str], bool]) -> Callable[[str], bool]:
    """Whether a match, or what stands before one of its gaps, passes: a card number is followed by
    its date, and an IBAN by `BIC`."""
    return lambda text: any(check(text[: gap.start()]) for gap in re.finditer(r"[\s-]|$", text))


def _random(text: str) -> bool:
    """Whether a value looks drawn rather than written: digits and letters, and much entropy."""
    value = re.split(r"[:=]\s*", text, maxsplit=1)[-1].strip("'\"")
    counts = Counter(value).values()
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in counts)
    return bits > 2.5 and any(c.isdigit() for c in value) and any(c.isalpha() for c in value)


def _phone(text: str) -> bool:
    return 8 <= sum(c.isdigit() for c in text) <= 15


def _person(text: str) -> bool:
    """Not a name of RFC 2606, which nobody has."""
    host = text.rpartition("@")[2].lower()
    return not re.search(r"(^|\.)(example\.(com|org|net)|example|test|invalid|localhost)$", host)


@dataclass(frozen=True)
class _Rule:
    sort: Sort
    kind: str
    hint: re.Pattern[str]
    """Something cheap that must be in the text."""
    form: re.Pattern[str]
    check: Callable[[str], bool] = bool


def _rule(
    sort: Sort, kind: str, hint: str, form: str, check: Callable[[str], bool] = bool
) -> _Rule:
    return _Rule(sort, kind, re.compile(hint), re.compile(form), check)


_RULES = (
    _rule("secret", "private key", "PRIVATE KEY", r"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----"),
    _rule("secret", "AWS access key", "A[KS]IA", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    _rule(
        "secret",
        "GitHub token",
        "gh[pousr]_|github_pat_",
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})\b",
    ),
    _rule("secret", "GitLab token", "glpat-", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    _rule("secret", "Slack token", "xox", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    _rule("secret", "API key (sk-)", "sk-", r"\bsk-[A-Za-z0-9_-]{20,}", _random),
    _rule("secret", "Hugging Face token", "hf_", r"\bhf_[A-Za-z0-9]{30,}\b"),
    _rule("secret", "Google API key", "AIza", r"\bAIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])"),
    _rule("secret", "Stripe key", "_live_", r"\b[prs]k_live_[0-9A-Za-z]{16,}"),
    _rule("secret", "npm token", "npm_", r"\bnpm_[A-Za-z0-9]{36}\b"),
    _rule("secret", "PyPI token", "pypi-", r"\bpypi-AgEI[A-Za-z0-9_-]{40,}"),
    _rule(
        "secret",
        "JSON web token",
        "eyJ",
        r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    ),
    _rule("secret", "password in an address", "://", r"\b[a-z][a-z0-9+]{1,12}://[^\s:/@]{1,64}:[^\s:/@]{3,64}@[\w.]"),
    _rule(
        "secret",
        "password or key",
        "[:=]",
        r"(?i:(?<![a-z])(?:password|passwd|pwd|secret|api[_-]?key|access[_-]?token|auth[_-]?token)"
        r"[\"']?\s{0,3}[:=]\s{0,3}[\"']?[^\s\"'<>,;{}()]{8,100})",
        _random,
    ),
    _rule(
        "personal",
        "e-mail address",
        "@",
        r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.)+[a-zA-Z]{2,24}\b",
        _person,
    ),
    _rule(
        "personal",
        "IBAN",
        "[A-Z]{2}[0-9]{2}",
        r"\b[A-Z]{2}[0-9]{2}(?: ?[0-9A-Z]{4}){2,7}(?: ?[0-9A-Z]{1,3})?\b",
        _begins(_iban),
    ),
    _rule(
        "personal",
        "card number",
        "[0-9]{4}",
        r"(?<![\w.-])[2-6][0-9]{3}(?:[ -]?[0-9]){9,15}(?![\w-])",
        _begins(_luhn),
    ),
    _rule(
        "personal",
        "US social security number",
        "-",
        r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])",
    ),
    _rule(
        "personal",
        "phone number",
        r"\d{3}",
        r"(?<![\w.+/-])(?:\+[1-9]\d{0,2}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"
        r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?![\w-])",
        _phone,
    ),
)  # fmt: skip


def find(text: str) -> Iterator[Finding]:
    """Secrets and personal data in a text, each place once."""
    taken: list[tuple[int, int]] = []
    for rule in _RULES:
        if not rule.hint.search(text):
            continue
        for match in rule.form.finditer(text):
            start, end = match.span()
            if any(a < end and start < b for a, b in taken) or not rule.check(match[0]):
                continue
            taken.append((start, end))
            yield Finding(rule.sort, rule.kind, _shown(match[0], rule.kind))


def _shown(text: str, kind: str) -> str:
    text = " ".join(text.split())
    if kind == "private key":
        return text
    return f"{text[: max(2, min(6, len(text) // 4))]}…"
