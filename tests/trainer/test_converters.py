"""The converters on small data in the sources' own formats."""

from __future__ import annotations

import json
import random

import pytest

from specs.errors import IntegrityError, UsageError
from trainer.data.converters import hpo, medmcqa
from trainer.data.converters.phrasing import with_options
from trainer.data.example import Example

NAMES = ("Micrognathia", "Macrognathia", "Retrognathia", "Prognathia", "Cleft jaw", "Jaw cyst")


def term(number: int, name: str, *lines: str, parent: str = "HP:0000271") -> str:
    return "\n".join(
        ["[Term]", f"id: HP:{number:07}", f"name: {name}", *lines, f"is_a: {parent} ! x", ""]
    )


def ontology(*extra: str) -> bytes:
    stanzas = [
        "format-version: 1.2\n",
        "[Term]\nid: HP:0000118\nname: Phenotypic abnormality\n",
        term(271, "Abnormality of the face", parent="HP:0000118"),
        *(
            term(
                1000 + i,
                name,
                f'def: "Description number {i} of a lower face." [ref:{i}]',
                f'synonym: "Lay words {i}" EXACT layperson []',
                f'synonym: "Other words {i}" BROAD layperson []',
            )
            for i, name in enumerate(NAMES)
        ),
        *extra,
        "[Typedef]\nid: has_part\nname: has part\n",
    ]
    return "\n".join(stanzas).encode()


def convert_hpo(raw: bytes, count: int = 50) -> dict[str, list[Example]]:
    options = hpo.HpoOptions(definitions=count, lay=count, terms=count)
    kinds: dict[str, list[Example]] = {}
    for example in hpo.convert(raw, options, 3):
        kinds.setdefault(example.kind, []).append(example)
    return kinds


def test_definitions_are_used_as_they_are_written() -> None:
    made = convert_hpo(ontology())["definition"]
    assert {e.answer for e in made} == {
        f"Description number {i} of a lower face." for i in range(len(NAMES))
    }
    for example in made:
        name = NAMES[int(example.answer.split()[2])]
        assert name.casefold() in example.messages[0].content.casefold()


def test_lay_words_ask_for_the_term_with_siblings_as_choices() -> None:
    made = convert_hpo(ontology())["lay-words"]
    assert len(made) == len(NAMES)
    for example in made:
        assert example.answer in example.choices
        assert len(set(example.choices)) == 4
        assert set(example.choices) <= set(NAMES)
        number = NAMES.index(example.answer)
        assert f"ay words {number}" in example.messages[0].content
        assert "ther words" not in example.messages[0].content


def test_the_group_is_the_concept_whatever_is_asked() -> None:
    kinds = convert_hpo(ontology())
    for made in kinds.values():
        assert {e.group for e in made} == {f"HP:{1000 + i:07}" for i in range(len(NAMES))}


def test_a_definition_that_names_its_term_is_not_asked_for_the_term() -> None:
    told = term(2000, "Epulis", 'def: "An epulis is a swelling of the gum." []')
    made = convert_hpo(ontology(told))
    assert "HP:0002000" in {e.group for e in made["definition"]}
    assert "HP:0002000" not in {e.group for e in made["definition-to-term"]}


def test_the_options_are_in_the_question() -> None:
    for example in convert_hpo(ontology())["definition-to-term"]:
        assert all(choice in example.messages[0].content for choice in example.choices)


def test_a_term_without_siblings_gets_cousins() -> None:
    alone = term(3000, "Glossoptosis", 'def: "A tongue that falls back." []', parent="HP:0001000")
    made = convert_hpo(ontology(alone))["definition-to-term"]
    (example,) = (e for e in made if e.group == "HP:0003000")
    assert "Micrognathia" not in example.choices  # its parent
    assert set(example.choices) - {"Glossoptosis"} < set(NAMES)


def test_obsolete_terms_ordinals_and_other_branches_are_left_out() -> None:
    raw = ontology(
        term(4000, "Gone", 'def: "It was renamed long ago." []', "is_obsolete: true"),
        term(4001, "Short 4th toe", 'def: "The toe is short for its age." []'),
        '[Term]\nid: HP:0004002\nname: Recessive\ndef: "A mode of inheritance." []\n',
    )
    groups = {e.group for made in convert_hpo(raw).values() for e in made}
    assert not groups & {"HP:0004000", "HP:0004001", "HP:0004002"}


def test_escapes_are_undone() -> None:
    raw = ontology(term(5000, "X-ray sign", r'def: "A \"halo\" \n around it\, seen often." []'))
    made = convert_hpo(raw)["definition"]
    assert 'A "halo" around it, seen often.' in {e.answer for e in made}


def test_counts_are_limits_and_the_seed_decides() -> None:
    options = hpo.HpoOptions(definitions=2, lay=1, terms=0)
    made = hpo.convert(ontology(), options, 3)
    assert sorted(e.kind for e in made) == ["definition", "definition", "lay-words"]
    assert made == hpo.convert(ontology(), options, 3)
    assert made != hpo.convert(ontology(), options, 4)


def test_another_file_is_not_the_ontology() -> None:
    with pytest.raises(IntegrityError, match="has no term HP:0000118"):
        convert_hpo(b"[Term]\nid: GO:1\nname: x\n")
    with pytest.raises(UsageError, match="expected UTF-8"):
        convert_hpo(b"\xff")


def row(question: str, *options: str, right: int = 0) -> dict[str, str]:
    listed = [f"{letter}. {text}" for letter, text in zip("ABCD", options, strict=True)]
    return {"question": question, "options": "\n".join(listed), "answer": listed[right]}


GOOD = row("Bone of the thigh is the", "Tibia", "Femur", "Ulna", "Radius", right=1)


def convert_medmcqa(*rows: dict[str, str], open_share: float = 0.0) -> list[Example]:
    raw = "".join(map(json.dumps, rows)).encode()  # no line breaks between the objects
    return medmcqa.convert(raw, medmcqa.MedmcqaOptions(open_share=open_share), 0)


def test_the_answer_is_the_text_of_the_right_option() -> None:
    (example,) = convert_medmcqa(GOOD)
    assert example.answer == "Femur"
    assert example.choices == ("Tibia", "Femur", "Ulna", "Radius")
    assert all(text in example.messages[0].content for text in example.choices)


@pytest.mark.parametrize(
    "bad",
    [
        row("Which muscle is marked by the arrow?", "a muscle", "b muscle", "c muscle", "d muscle"),
        row("Normal range of the value is", "20-Oct", "30-40", "50-60", "70-80"),
        row("Which are true of the nerve?", "A and B", "only first", "only last", "neither one"),
        row("Which marker shows the gland?", "A", "B", "C", "D"),
        row("Twice the same option is", "Femur", "femur", "Ulna", "Radius"),
        row("An option is empty here", "", "Femur", "Ulna", "Radius"),
        {**GOOD, "answer": "E. Femur"},
        {**GOOD, "options": "A. one\nB. two\nC. three"},
    ],
)
def test_rows_that_cannot_be_asked_in_text_are_left_out(bad: dict[str, str]) -> None:
    assert [e.answer for e in convert_medmcqa(GOOD, bad)] == ["Femur"]


def test_options_may_hold_line_breaks_and_the_data_is_cleaned() -> None:
    broken = {
        "question": "HEA  is\tsupplied by the right coronary aery in",
        "options": "A. The \ufb01rst\nplace\nB. Impoant\nC. x-ray\nD. Ulna",
        "answer": "B. Impoant",
    }
    question, options, answer = medmcqa.parse(broken) or ("", (), "")
    assert question == "HEART is supplied by the right coronary artery in"
    assert options == ("The first place", "Important", "x-ray", "Ulna")
    assert answer == "Important"


def test_only_questions_that_stand_alone_are_asked_without_options() -> None:
    alone = row("What is the longest bone?", "Tibia", "Femur", "Ulna", "Radius", right=1)
    bound = row("Which of the following is a bone?", "Femur", "Soleus", "Vagus", "Aorta")
    above = row("What is made of bone?", "Femur", "Ulna", "Tibia", "All of the above", right=3)
    prompts = [e.messages[0].content for e in convert_medmcqa(alone, bound, above, open_share=1)]
    assert [p for p in prompts if "Femur" not in p] == ["What is the longest bone?"]


def test_the_same_question_is_one_group() -> None:
    other = row("Bone of the THIGH is the:", "Tibia", "Femur", "Rib", "Radius", right=1)
    assert len({e.group for e in convert_medmcqa(GOOD, other)}) == 1


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"question": "x"} oops', "is not JSON at character 18"),
        (b"[1]", "expected an object of texts"),
        (b"", "holds no usable question"),
    ],
)
def test_data_of_another_format(raw: bytes, expected: str) -> None:
    with pytest.raises(IntegrityError, match=expected):
        medmcqa.convert(raw, medmcqa.MedmcqaOptions(open_share=0), 0)


def test_every_way_of_listing_shows_every_option() -> None:
    options = ["one", "two", "three", "four"]
    shown = {with_options("Q?", options, random.Random(seed)) for seed in range(40)}
    assert len(shown) == 5
    for text in shown:
        assert text.startswith("Q?")
        assert all(option in text for option in options)
