"""What a data set holds, and what is wrong with it, before anything is trained on it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainer.data.example import Example, counted, normalise
from trainer.data.languages import language
from trainer.data.near import NearIndex
from trainer.data.secrets import find
from trainer.data.split import MAX_SIMILARITY, MIN_HELD_OUT_GROUPS, MIN_TRAIN_EXAMPLES

MOST_PLACES = 20
"""Places that are named of each sort of finding."""
BINS = 12
UNBALANCED_SHARE = 0.75
MIN_ROWS_FOR_BALANCE = 20
Placed = tuple[str, Example]


@dataclass(frozen=True)
class Lengths:
    """How long texts are."""

    least: int
    median: int
    p95: int
    most: int
    total: int

    @classmethod
    def of(cls, counts: Sequence[int]) -> Lengths:
        """Of at least one length."""
        order = sorted(counts)
        last = len(order) - 1
        return cls(order[0], order[last // 2], order[round(0.95 * last)], order[last], sum(order))


@dataclass(frozen=True)
class Repeat:
    """A row that says what an earlier one said."""

    where: str
    first: str


@dataclass(frozen=True)
class Found:
    """A secret or personal data in a row."""

    sort: str
    kind: str
    where: str
    shown: str


@dataclass(frozen=True)
class Many:
    """How many rows of a sort there are, and the first `MOST_PLACES` of them."""

    count: int
    first: tuple[Any, ...]


@dataclass(frozen=True)
class Inspection:
    """The report on a data set."""

    examples: int
    groups: int
    conversations: int
    """Examples with more than one question."""
    preferences: int
    with_choices: int
    kinds: dict[str, int]
    unit: str
    """What lengths count."""
    prompts: Lengths
    answers: Lengths
    whole: Lengths
    histogram: tuple[tuple[int, int, int], ...]
    """From (inclusive), to (exclusive), examples of that length."""
    languages: dict[str, int]
    exact: Many
    near: Many
    answered_otherwise: Many
    """Rows that ask what an earlier one asked and answer something else."""
    leaks: Many | None
    """Held-out rows that are in training too; None where no held-out data was named."""
    held_out: int
    secrets: Many
    personal: Many
    unbalanced: str | None
    """What to say where one answer outweighs all others."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to look at before training."""
        found = []
        if self.leaks is not None and self.leaks.count:
            found.append(f"{self.leaks.count:,} of {self.held_out:,} held-out rows leaked into it")
        if self.secrets.count:
            found.append(f"secrets in {_places(self.secrets)}: a pack may say them to anyone")
        if self.personal.count:
            found.append(f"personal data in {_places(self.personal)}: a pack may say it to anyone")
        least = 2 * MIN_HELD_OUT_GROUPS
        if self.groups < least or self.examples < MIN_TRAIN_EXAMPLES + MIN_HELD_OUT_GROUPS:
            found.append(
                f"too little to train on and hold some out: {counted(self.examples, 'example')} "
                f"in {counted(self.groups, 'group')} (expected at least "
                f"{MIN_TRAIN_EXAMPLES + MIN_HELD_OUT_GROUPS} in {least})"
            )
        repeats = self.exact.count + self.near.count
        if repeats * 10 > self.examples:
            found.append(f"{repeats:,} of {self.examples:,} rows repeat earlier ones")
        if self.unbalanced is not None:
            found.append(self.unbalanced)
        return tuple(found)

    def document(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        return {**asdict(self), "warnings": list(self.warnings)}


def _places(found: Many) -> str:
    return f"{found.count:,} place{'s' if found.count != 1 else ''}"


def unbalanced(examples: Sequence[Example]) -> str | None:
    """What to say where one answer outweighs all others, so that guessing it looks like skill."""
    ((answer, count),) = Counter(e.answer.strip() for e in examples).most_common(1)
    if len(examples) < MIN_ROWS_FOR_BALANCE or count <= UNBALANCED_SHARE * len(examples):
        return None
    text = answer if len(answer) <= 30 else answer[:30] + "…"
    return f"unbalanced: {count:,} of {len(examples):,} answers are `{text}`"


def inspect(
    placed: Iterable[Placed],
    held_out: Iterable[Placed] | None,
    lengths: Callable[[Example], tuple[int, int]],
    unit: str,
) -> Inspection:
    """Look through data.

    Args:
        placed: Training rows with their places.
        held_out: Rows that must not be among them, if there are such.
        lengths: Of prompt and answer.
        unit: What those count, such as "tokens".
    """
    rows = list(placed)
    examples = [example for _, example in rows]
    sizes = [lengths(example) for example in examples]
    whole = [prompt + answer for prompt, answer in sizes]
    near_index = NearIndex()
    exact, near, otherwise = _repeats(rows, near_index)
    secrets, personal = _unwanted(rows)
    held = list(held_out) if held_out is not None else []
    return Inspection(
        examples=len(rows),
        groups=len({e.group for e in examples}),
        conversations=sum(sum(m.role == "user" for m in e.messages) > 1 for e in examples),
        preferences=sum(bool(e.rejected) for e in examples),
        with_choices=sum(bool(e.choices) for e in examples),
        kinds=_counted(e.kind for e in examples if e.kind),
        unit=unit,
        prompts=Lengths.of([p for p, _ in sizes]),
        answers=Lengths.of([a for _, a in sizes]),
        whole=Lengths.of(whole),
        histogram=histogram(whole),
        languages=_counted(language(f"{e.messages[-2].content}\n{e.answer}") for e in examples),
        exact=exact,
        near=near,
        answered_otherwise=otherwise,
        leaks=_many(_leaks(rows, held, near_index)) if held_out is not None else None,
        held_out=len(held),
        secrets=secrets,
        personal=personal,
        unbalanced=unbalanced(examples),
    )


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def histogram(counts: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Equal bins of round width; the last takes what is beyond the 99th percentile."""
    order = sorted(counts)
    most = order[round(0.99 * (len(order) - 1))]
    width = next(
        w for scale in (1, 10, 100, 1000, 10**4, 10**5, 10**6, 10**7)
        for w in (scale, 2 * scale, 5 * scale) if w * BINS > most
    )  # fmt: skip
    first, last = order[0] // width, most // width
    bins = Counter(min(count // width, last) for count in counts)
    edge = max(order[-1] + 1, (last + 1) * width)
    return tuple(
        (i * width, (i + 1) * width if i < last else edge, bins[i]) for i in range(first, last + 1)
    )


def _asked(example: Example) -> str:
    return "\n".join(normalise(m.content) or m.content for m in example.messages[:-1])


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def whole_text(example: Example) -> str:
    """All that is said in an example."""
    return "\n".join(m.content for m in example.messages) + "\n" + example.rejected


def _repeats(rows: Sequence[Placed], index: NearIndex) -> tuple[Many, Many, Many]:
    seen: dict[bytes, str] = {}
    asked: dict[bytes, str] = {}
    exact: list[Repeat] = []
    near: list[Repeat] = []
    otherwise: list[Repeat] = []
    for where, example in rows:
        question = _asked(example)
        asks, says = _key(question), _key(f"{question}\0{example.answer}\0{example.rejected}")
        number = index.add(whole_text(example))
        if says in seen:
            exact.append(Repeat(where, seen[says]))
        elif asks in asked:
            otherwise.append(Repeat(where, asked[asks]))
        elif number is not None:
            near.append(Repeat(where, rows[number][0]))
        seen.setdefault(says, where)
        asked.setdefault(asks, where)
    return _many(exact), _many(near), _many(otherwise)


def _many(found: Sequence[Any]) -> Many:
    return Many(len(found), tuple(found[:MOST_PLACES]))


def leaks(rows: Sequence[Placed], held: Sequence[Placed]) -> list[Repeat]:
    """Held-out rows whose question, group or near copy is in training."""
    index = NearIndex()
    for _, example in rows:
        index.add(whole_text(example))
    return _leaks(rows, held, index)


def _leaks(rows: Sequence[Placed], held: Sequence[Placed], index: NearIndex) -> list[Repeat]:
    index = index.at(MAX_SIMILARITY)
    asked = {_key(_asked(example)): where for where, example in reversed(rows)}
    groups = {example.group: where for where, example in reversed(rows)}
    found = []
    for where, example in held:
        first = asked.get(_key(_asked(example))) or groups.get(example.group)
        if first is None and (number := index.find(whole_text(example))) is not None:
            first = rows[number][0]
        if first is not None:
            found.append(Repeat(where, first))
    return found


def concerns(examples: Sequence[Example]) -> list[str]:
    """What anybody should be told who trains on this: imbalance, and secrets."""
    found = [text] if (text := unbalanced(examples)) is not None else []
    secrets = sum(f.sort == "secret" for e in examples for f in find(whole_text(e)))
    if secrets:
        found.append(
            "the data holds secrets, which the pack may say to anyone "
            f"({secrets:,} found; `mbpm data inspect` names them)"
        )
    return found


def _unwanted(rows: Sequence[Placed]) -> tuple[Many, Many]:
    found: dict[str, list[Found]] = {"secret": [], "personal": []}
    said: set[tuple[str, str, str]] = set()
    for where, example in rows:
        for finding in find(whole_text(example)):
            # the turns of a chat and the passages of a document say the same again
            if (key := (where, finding.kind, finding.shown)) not in said:
                said.add(key)
                found[finding.sort].append(Found(finding.sort, finding.kind, where, finding.shown))
    return _many(found["secret"]), _many(found["personal"])
