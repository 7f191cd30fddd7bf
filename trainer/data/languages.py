"""Which language a text is in, by script and by its commonest words.

A heuristic, good enough to see that a data set is not in the language it was thought to be: a
script that one language is mostly written in decides; among languages in Latin or Cyrillic letters
the one decides that most of the words belong to by a list of its function words. A text with fewer
than `MIN_HITS` of them is of no known language.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

import tomli

UNKNOWN = "?"
MIN_HITS = 2
MAX_CHARS = 4000

_SCRIPTS = (
    ("ja", "\u3040", "\u30ff"),
    ("ko", "\uac00", "\ud7a3"),
    ("zh", "\u4e00", "\u9fff"),
    ("ar", "\u0600", "\u06ff"),
    ("he", "\u0590", "\u05ff"),
    ("el", "\u0370", "\u03ff"),
    ("hi", "\u0900", "\u097f"),
    ("bn", "\u0980", "\u09ff"),
    ("ta", "\u0b80", "\u0bff"),
    ("th", "\u0e00", "\u0e7f"),
    ("ka", "\u10a0", "\u10ff"),
    ("hy", "\u0530", "\u058f"),
    ("cyrillic", "\u0400", "\u04ff"),
)
_SCRIPT = re.compile("|".join(f"(?P<{code}>[{a}-{b}])" for code, a, b in _SCRIPTS))

FILE = Path(__file__).with_name("languages.toml")


@lru_cache(maxsize=1)
def _words() -> dict[str, dict[str, frozenset[str]]]:
    """Script -> language -> its commonest words."""
    table = tomli.loads(FILE.read_text("utf-8"))
    return {s: {k: frozenset(v.split()) for k, v in t.items()} for s, t in table.items()}


def language(text: str) -> str:
    """The ISO 639-1 code of a text's language, or `UNKNOWN`."""
    text = text[:MAX_CHARS].lower()
    plain = text.isascii()
    letters = 0 if plain else sum(map(str.isalpha, text))
    scripts = Counter(m.lastgroup or "" for m in (() if plain else _SCRIPT.finditer(text)))
    if scripts["ja"] * 10 >= letters > 0:
        return "ja"  # its sentences are half Chinese characters
    script, count = max(scripts.items(), key=lambda item: item[1], default=("", 0))
    if count * 2 > letters and script != "cyrillic":
        return script
    words = re.findall(r"[^\W\d_]+", text)
    lists = _words()["cyrillic" if count * 2 > letters else "latin"]
    # long words count more: the short ones are those that languages share
    hits = {code: [len(w) for w in words if w in known] for code, known in lists.items()}
    best = max(hits, key=lambda code: sum(hits[code]))
    return best if len(hits[best]) >= MIN_HITS else UNKNOWN
