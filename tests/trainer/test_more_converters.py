"""Converters of the recipes `legal`, `code` and `reasoning`."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import re

import pytest

from specs.errors import IntegrityError
from trainer.data.converters import articles, codeio, licences, plays, privacyqa, worked
from trainer.recipe import load_recipe


def raw(rows: object) -> bytes:
    return json.dumps(rows).encode()


def test_a_passage_and_a_question_become_yes_or_no() -> None:
    rows = [
        {"context": f"We keep  data {i}.", "question": "do you keep data", "answer": "True"}
        for i in range(5)
    ] + [
        {"context": "Ask ada@firm.org.", "question": "Whom?", "answer": "True"},
        {"context": "Cookies.", "question": "Do you sell it?", "answer": "False"},
    ]
    data = "\n".join(map(json.dumps, rows)).encode()
    made = privacyqa.convert(data, privacyqa.PrivacyQaOptions(rows=100), 1)
    assert len(made) == 6
    assert len({e.group for e in made}) == 2
    no = next(e for e in made if e.answer == privacyqa.NO)
    assert "Do you sell it?" in no.messages[0].content and "Cookies." in no.messages[0].content
    assert all(e.answer in e.choices for e in made)
    assert any("We keep data 0." in e.messages[0].content for e in made)
    assert made == privacyqa.convert(data, privacyqa.PrivacyQaOptions(rows=100), 1)
    assert len(privacyqa.convert(data, privacyqa.PrivacyQaOptions(rows=2), 1)) == 2


def test_licences_of_a_family_stay_together() -> None:
    def row(key: str, category: str, **more: object) -> dict[str, object]:
        return {"license_key": key, "category": category, "spdx_license_key": key.upper(), **more}

    made = licences.convert(
        raw(
            [
                row("gpl-2.0", "Copyleft"),
                row("gpl-3.0", "Copyleft"),
                row("mit", "Permissive", spdx_license_key="LicenseRef-x-mit"),
                row("old", "Permissive", is_deprecated=True),
                row("odd", "CLA"),
                row("x-exception", "Copyleft", is_exception=True),
            ]
        ),
        licences.LicencesOptions(licences=10),
        1,
    )
    assert {e.group for e in made} == {"licence gpl", "licence mit"}
    assert sum("GPL-" in e.messages[0].content for e in made) == 2
    assert next(e for e in made if "mit" in e.group).answer == licences.SORTS["Permissive"]


def test_articles_are_quoted_and_named() -> None:
    body = "Every person\n\n\xa0 \xa0\n(a) shall have the right, and\n\n(b) no other."
    rows = [
        {"article": 7, "title": "Right", "description": body},
        {"article": "7A", "title": "Gone", "description": "[Omitted by an amendment.] " * 3},
        {"article": 8, "title": "Long", "description": "x" * 500},
    ]  # fmt: skip
    made = articles.convert(raw(rows), articles.ArticlesOptions(longest=400), 1)
    by_kind = {e.kind: e for e in made}
    assert len(made) == 2
    assert by_kind["article-text"].answer == (
        "Every person\n(a) shall have the right, and\n(b) no other."
    )
    assert by_kind["article-title"].answer == "Article 7 is about this: Right."
    assert len({e.group for e in made}) == 1


WORKS = (
    "THE ENDTHE LONG DAYS\n\nby William Shakespeare\n\nPersons.\n\nACT I.\n\n"
    + "KING.\nLet us go, and speak no more of it to any man that lives.\n\n" * 40
    + "THE ENDA LOVER'S\n  COMPLAINT\nTHE SONNETS\nby William Shakespeare\n\n\nI\n\n"
    + "From fairest creatures\n" * 13
    + "  The end of it.\n\nII\n\nToo short.\n"
)


def test_plays_go_on_and_sonnets_are_whole() -> None:
    made = plays.convert(WORKS.encode(), plays.PlaysOptions(passages=3), 1)
    assert [title for title, _ in plays.works(WORKS)] == ["THE LONG DAYS", "THE SONNETS"]
    scenes = [e for e in made if e.kind == "scene"]
    (sonnet,) = (e for e in made if e.kind == "sonnet")
    assert len(scenes) == 3
    assert {e.group for e in scenes} == {"THE LONG DAYS"}
    assert not any("Persons." in e.messages[0].content for e in scenes)
    assert sonnet.answer.endswith("\n  The end of it.")
    assert sonnet.answer.count("\n") == 13
    assert "From fairest creatures" in sonnet.messages[0].content
    with pytest.raises(IntegrityError, match="holds no work"):
        plays.convert(b"nothing", plays.PlaysOptions(passages=3), 1)


PROGRAM = "# import necessary packages\nimport math\n\n# main function\ndef main_solution(x):\n    return math.floor(x)"  # noqa: E501


def task(program: str, description: str = "Round down.") -> dict[str, str]:
    return {
        "task_description": description,
        "input_output_spec": "x: float",
        "code_sample": program,
    }


@pytest.mark.parametrize(
    ("program", "taken"),
    [
        (PROGRAM, True),
        (PROGRAM.replace("math", "numpy"), True),
        (PROGRAM.replace("import math", "import os"), False),
        (PROGRAM.replace("import math", "from requests import get"), False),
        (PROGRAM.replace("import math", "from . import math"), False),
        (PROGRAM.replace("main_solution", "other"), False),
        (PROGRAM + "\n  (", False),
        (PROGRAM + "\n# " + "x" * 900, False),
    ],
)
def test_programs_that_are_taken(program: str, taken: bool) -> None:
    packed = gzip.compress(raw([task(program), task(PROGRAM, "Another.")]), mtime=0)
    made = codeio.convert(packed, codeio.CodeIoOptions(longest=900), 1)
    assert len(made) == 1 + taken
    assert made[0].answer.startswith("```python\nimport ")
    assert "main function" not in made[0].answer


def test_codeio_that_is_something_else() -> None:
    options = codeio.CodeIoOptions(longest=900)
    for data, told in (
        (b"{}", "damaged gzip"),
        (gzip.compress(raw([task(PROGRAM)]), mtime=0)[:-9], "is cut"),
        (gzip.compress(b"{", mtime=0), "is not JSON"),
        (gzip.compress(b"[1]", mtime=0), "expected an array of objects"),
        (gzip.compress(raw([{}]), mtime=0), "`task_description`: expected text"),
        (gzip.compress(raw([]), mtime=0), "no usable program"),
    ):
        with pytest.raises(IntegrityError, match=told):
            codeio.convert(data, options, 1)


@pytest.mark.parametrize(
    ("convert", "options"),
    [
        (privacyqa.convert, privacyqa.PrivacyQaOptions(rows=1)),
        (licences.convert, licences.LicencesOptions(licences=1)),
        (articles.convert, articles.ArticlesOptions(longest=400)),
    ],
)
@pytest.mark.parametrize("data", [b"", b"[", b"[1]", b"[{}]", b'{"a": 1}', b"[" * 100_000])
def test_another_file_is_refused(convert: object, options: object, data: bytes) -> None:
    with pytest.raises(IntegrityError):
        convert(data, options, 1)  # type: ignore[operator]


def sides(step: str) -> list[tuple[float, float]]:
    """What stands on both sides of each equals sign, as Python itself works it out."""
    found = []
    for left, right in itertools.pairwise(step.split(" = ")):
        before = re.search(r"(?<![\w.])-?\d[-+*/\d .]*$", left)
        after = re.match(r"-?\d[-+*/\d .]*(?![\w.])", right)
        if before and after:
            found.append((eval(before[0]), eval(after[0])))
    return found


def test_worked_problems_are_right_in_every_step() -> None:
    made = worked.generate(worked.WorkedOptions(each=60), 9)
    assert len(made) == 60 * len(worked.KINDS)
    assert len({e.group for e in made}) == len(made)
    checked = 0
    for example in made:
        *steps, last = example.answer.split("\n")
        found = re.fullmatch(r"The answer is (.+)\.", last)
        assert found
        for left, right in [pair for step in steps for pair in sides(step)]:
            assert left == right, example
            checked += 1
        question, answer = example.messages[0].content, found[1]
        if example.kind in ("chain", "product") and "by" not in question:
            asked = question.replace("times", "*")
            assert eval("".join(re.findall(r"[-+*]|\d+", asked))) == int(answer)
        if example.kind == "equation":
            a, b, c = map(int, re.findall(r"(-?\d+)x \+ (\d+) = (-?\d+)", question)[0])
            assert a * int(answer) + b == c
        if example.kind == "divisor":
            assert math.gcd(*map(int, re.findall(r"\d+", question))) == int(answer)
    assert checked > 900
    assert made == worked.generate(worked.WorkedOptions(each=60), 9)


@pytest.mark.parametrize("name", ["legal", "code", "creative", "reasoning"])
def test_bundled_recipes_say_where_everything_is_from(name: str) -> None:
    recipe = load_recipe(name)
    assert (recipe.name, recipe.domain) == (name, name)
    for record in recipe.records:
        assert record.license and record.version and record.note
        assert not re.search(r"GPL|NC|unknown", record.license)
