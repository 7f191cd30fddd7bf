# ruff: noqa: RUF001, SIM905
"""Varied strings for tokenizers, made from a seed."""

from __future__ import annotations

import random
import unicodedata

WORDS = """the of model language pack base routing answer don't I'll they've it's we're O'Neil
photosynthesis Hyperlipidämie naïve façade coöperate Straße jalapeño СССР Москва привет мир ελληνικά
λόγος שלום العربية नमस्ते ภาษาไทย 日本語 漢字 カタカナ 한국어 한글 中文 你好 ქართული አማርኛ""".split()
EMOJI = ["😀", "👩‍⚕️", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "🧬", "1️⃣"]
COMBINING = ["e\u0301", "a\u0308", "o\u0328\u0301", "\u1112\u1161\u11ab", "n\u0303", "Å", "ﬁ"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n ", "\u00a0", "\u3000", "\u200b", "\v"]
CODE = [
    "def f(x: int) -> str:\n    return f'{x!r}'\n", "for(int i=0;i<10;++i){a[i]^=0xFF;}",
    "SELECT * FROM t WHERE a >= 3 AND b IS NOT NULL;", '{"k": [1, 2.5e-3, null]}',
    "<div class=\"x\">&nbsp;</div>", "#!/bin/sh\nset -eu\n", "x = y if z else w  # why\n",
    "\\frac{a}{b} \\alpha_{i}^2", "https://example.org/a?b=c&d=%20#e",
]  # fmt: skip
DIGITS = ["0", "7", "42", "2024", "3.14159", "1,000,000", "10^-9", "½", "²", "٣٤", "１２", "Ⅷ"]


def varied(count: int, seed: int, extra: list[str] | None = None) -> list[str]:
    """Strings of 1 to 12 pieces; pieces of `extra` (look-alikes) are mixed in where given."""
    rng = random.Random(seed)
    kinds = [WORDS, WORDS, EMOJI, COMBINING, SPACES, SPACES, CODE, DIGITS, list(".,;:!?'\"()[]{}")]
    if extra:
        kinds += [extra, extra]
    texts = ["", " ", "a", *CODE, *COMBINING, *EMOJI, *SPACES, *DIGITS]
    while len(texts) < count:
        parts = []
        for _ in range(rng.randint(1, 12)):
            parts.append(rng.choice(rng.choice(kinds)))
            if rng.random() < 0.4:
                parts.append(" ")
        if rng.random() < 0.1:
            code = rng.choice([rng.randrange(0x20, 0xD800), rng.randrange(0xE000, 0x30000)])
            parts.append(chr(code))
        texts.append("".join(parts))
    return texts[:count]


def normal(text: str) -> bool:
    """Whether Unicode's composed form of the text is the text itself."""
    return unicodedata.is_normalized("NFC", text)
