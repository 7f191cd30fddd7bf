"""A made-up registry of many packs: the same one every time.

`python -m bench.many_packs FOLDER [PACKS]` writes it; a folder that is finished is left alone.
Packs require, conflict with and provide others, newer versions newer ones, and a few hundred packs
are required by many. There are no blobs: nothing of it can be installed, only found and resolved.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry_index import bundled
from registry_index.summarising import rebuild
from registry_index.tree import INDEX_DIR, Registry, index_path
from registry_index.writing import put_bytes

PACKS = 100_000
VERSIONS = [f"{m}.{n}.0" for m, count in ((1, 4), (2, 3), (3, 3)) for n in range(count)]
COMMON = 400
"""Packs that others like to require."""
EVERY = 33
"""One pack in so many provides a virtual name of each kind."""
VIRTUAL = (("any", 600), ("some", 38))
"""Kinds of virtual names, and how many there are: about 5 and 80 packs provide each."""
BEHIND, STRICT = 0.03, 0.15
"""Shares of requirements that want the major version before, or exactly the same one."""
DONE_FILE = ".finished"
_SYLLABLE_TEXT = """
ba ce di fo gu ha je ki lo mu na pe qui ro su ta ve wi xo zu bra cle dri flo gra
"""
_TOPIC_TEXT = """
law tax lease court medicine dosage anatomy nursing cooking baking garden weather rail flight
python rust kernel network grammar poetry history music chess physics algebra chemistry
insurance banking payroll hiring travel visa customs recycling energy solar battery bicycle
"""
_SYLLABLES, _TOPICS = _SYLLABLE_TEXT.split(), _TOPIC_TEXT.split()


def name_of(number: int) -> str:
    """The name of a pack: `tax-bace-17`."""
    topic = _TOPICS[number % len(_TOPICS)]
    word = _word(number // 7 % 600)
    return f"{topic}-{word}-{number}"


def _provided(number: int) -> list[str]:
    """What a pack provides: one of the names that few others provide too, or one of those that many
    do. No pack has such a name itself."""
    kind, place = number % EVERY, number // EVERY
    return [_virtual(kind, place)] if kind < len(VIRTUAL) else []


def is_virtual(name: str) -> bool:
    """Whether a name is one that packs provide, and no pack's own."""
    return name.partition("-")[0] in dict(VIRTUAL)


def _virtual(kind: int, place: int) -> str:
    return f"{VIRTUAL[kind][0]}-{_word(place % VIRTUAL[kind][1])}"


def _word(number: int) -> str:
    count = len(_SYLLABLES)
    return _SYLLABLES[number % count] + _SYLLABLES[number // count % count]


def lines_of(number: int, fingerprint: str) -> Iterator[dict[str, Any]]:
    """The index lines of a pack, oldest first."""
    chance = random.Random(number)
    name = name_of(number)
    topic = _TOPICS[number % len(_TOPICS)]
    words = [_word(int(chance.paretovariate(0.6)) % 600) for _ in range(10)]
    many = chance.choice((0, 1, 2, 3, 3)) if number > 1 else 0
    needs = {_needed(number, chance): chance.random() for _ in range(many)}
    against = _needed(number, chance) if number > 1 and chance.random() < 0.1 else None
    places = number // EVERY + 1
    virtual = {
        _virtual(kind, chance.randrange(places)): "*"
        for kind in range(len(VIRTUAL))
        if chance.random() < 0.03
    }
    for place, version in enumerate(VERSIONS):
        major = int(version[0])
        before = max(1, major - 1)
        requires = dict(virtual)
        for need, luck in sorted(needs.items()):
            # most go with the major version before too, some with none but it
            strict = f"^{before}" if luck < BEHIND and number >= COMMON else f"^{major}"
            requires[name_of(need)] = strict if luck < STRICT else f">={before}"
        conflicts = {}
        if against is not None and against not in needs and version == VERSIONS[-1]:
            conflicts[name_of(against)] = f"={VERSIONS[-1]}"
        yield {
            "base": {"fingerprint": fingerprint, "name": "smollm2-135m"},
            "conflicts": conflicts,
            "description": f"Answers questions about {topic}: {' '.join(words)}",
            "domain": topic,
            "evals": {
                "base": 20.5,
                "higher_is_better": False,
                "metric": "response_perplexity",
                "pack": round(4 + chance.random() * 8, 3),
                "rows": 400,
            },
            "forced": [],
            "format": 1,
            "license": "Apache-2.0",
            "manifest": hashlib.sha256(f"{name} {version}".encode()).hexdigest(),
            "manifest_size": 2400,
            "name": name,
            "provides": _provided(number),
            "published": f"2026-{1 + place:02d}-01T00:00:00Z",
            "recommends": {},
            "requires": requires,
            "size": 4_900_000 + number,
            "version": version,
            "yanked": place == 5 and number % 50 == 0,
        }


def newest(number: int) -> dict[str, Any]:
    """The index line of a pack's newest version."""
    return list(lines_of(number, ""))[-1]


def _needed(number: int, chance: random.Random) -> int:
    """A pack with a lower number, so that no circle comes about."""
    if chance.random() < 0.8:
        return int(min(number, COMMON) * chance.random() ** 2)
    return chance.randrange(number)


def make(root: Path, packs: int = PACKS) -> Path:
    """Write the registry, unless it is there already."""
    # another generator makes another registry
    mark = f"{packs} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}"
    if (root / DONE_FILE).is_file() and (root / DONE_FILE).read_text() == mark:
        return root
    shutil.rmtree(root, ignore_errors=True)
    (root / INDEX_DIR).mkdir(parents=True)
    (root / "config.json").write_text('{"format":1,"name":"many"}\n')
    (card,) = [c for c in bundled().bases() if c.name == "smollm2-135m"]
    for number in range(packs):
        write(root, number, card.fingerprint)
    rebuild(Registry(root))
    (root / DONE_FILE).write_text(mark)
    return root


def write(root: Path, number: int, fingerprint: str) -> None:
    """Write the index file of one pack."""
    text = "".join(
        json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n"
        for line in lines_of(number, fingerprint)
    )
    file = root / INDEX_DIR / index_path(name_of(number))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def change(root: Path, numbers: list[int], version: str) -> None:
    """Publish another version of some packs, and bring the summary up to date."""
    from registry_index.summarising import changing

    registry = Registry(root)
    with changing(registry, *map(name_of, numbers)):
        for number in numbers:
            path = Path(INDEX_DIR) / index_path(name_of(number))
            raw = (root / path).read_bytes()
            line = json.loads(raw.splitlines()[-1])
            line["version"] = version
            line["manifest"] = hashlib.sha256(f"{line['name']} {version}".encode()).hexdigest()
            text = json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n"
            put_bytes(root, path, raw + text.encode())


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else PACKS)
