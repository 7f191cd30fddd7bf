"""Small problems with every step written out, made by rule and from a seed; there is no source.

Writing the steps is what lets a small model get further than guessing (Nye et al., "Show Your Work:
Scratchpads for Intermediate Computation with Language Models", 2021). Every answer ends with `The
answer is N.` The group is the problem.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from specs.model import Contract
from trainer.data.example import Example, group_of

Made = tuple[str, list[str], str]
"""Question, steps, answer."""
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_LEGS = {"dog": 4, "hen": 2, "spider": 8, "ant": 6, "snake": 0, "cow": 4, "duck": 2, "crab": 10}
_NAMES = ("Ada", "Ben", "Chen", "Dina", "Emil", "Fatima", "Goran", "Hana")
_THINGS = ("apples", "books", "coins", "stamps", "marbles", "pencils")


class WorkedOptions(Contract):
    """How many problems of each kind to make."""

    each: Annotated[int, Field(ge=1, le=100_000)]


def _chain(rng: random.Random) -> Made:
    total, words, steps = rng.randint(10, 99), "", []
    words = str(total)
    for _ in range(rng.randint(2, 4)):
        number = rng.randint(2, 99)
        sign = rng.choice("+-")
        after = total + number if sign == "+" else total - number
        steps.append(f"{total} {sign} {number} = {after}")
        words += f" {sign} {number}"
        total = after
    return rng.choice(("What is {}?", "Calculate {}.", "{} = ?")).format(words), steps, str(total)


def _product(rng: random.Random) -> Made:
    left, right = rng.randint(12, 99), rng.randint(12, 99)
    tens, ones = right // 10 * 10, right % 10
    first, second = left * tens, left * ones
    steps = [
        f"{right} = {tens} + {ones}",
        f"{left} * {tens} = {first}",
        f"{left} * {ones} = {second}",
        f"{first} + {second} = {first + second}",
    ]
    question = rng.choice(("What is {} * {}?", "Multiply {} by {}.", "{} times {} is what?"))
    return question.format(left, right), steps, str(left * right)


def _equation(rng: random.Random) -> Made:
    x, factor, plus = rng.randint(-12, 20), rng.randint(2, 12), rng.randint(1, 60)
    right = factor * x + plus
    steps = [
        f"{factor}x = {right} - {plus} = {right - plus}",
        f"x = {right - plus} / {factor} = {x}",
    ]
    question = rng.choice(("Solve for x: {}", "What is x if {}?", "Find x: {}"))
    return question.format(f"{factor}x + {plus} = {right}"), steps, str(x)


def _divisor(rng: random.Random) -> Made:
    common = rng.randint(2, 24)
    left, right = common * rng.randint(2, 15), common * rng.randint(2, 15)
    a, b, steps = max(left, right), min(left, right), list[str]()
    while b:
        steps.append(f"{a} = {a // b} * {b} + {a % b}")
        a, b = b, a % b
    question = rng.choice(
        (
            "What is the greatest common divisor of {} and {}?",
            "Find the largest number that divides both {} and {}.",
        )
    )
    return question.format(left, right), steps, str(a)


def _legs(rng: random.Random) -> Made:
    animals = rng.sample(sorted(_LEGS), rng.randint(2, 4))
    counts = [rng.randint(2, 12) for _ in animals]
    parts = [c * _LEGS[a] for a, c in zip(animals, counts, strict=True)]
    steps = [
        f"{c} {a}s have {c} * {_LEGS[a]} = {p} legs"
        for a, c, p in zip(animals, counts, parts, strict=True)
    ]
    steps.append(f"{' + '.join(map(str, parts))} = {sum(parts)}")
    listed = ", ".join(f"{c} {a}s" for a, c in zip(animals, counts, strict=True))
    return f"How many legs do these animals have together: {listed}?", steps, str(sum(parts))


def _day(rng: random.Random) -> Made:
    start, later = rng.randrange(7), rng.randint(8, 200)
    steps = [
        f"{later} = {later // 7} * 7 + {later % 7}, and whole weeks change nothing",
        f"{later % 7} days after {_DAYS[start]} is {_DAYS[(start + later) % 7]}",
    ]
    question = f"Today is {_DAYS[start]}. Which day of the week is it in {later} days?"
    return question, steps, _DAYS[(start + later) % 7]


def _share(rng: random.Random) -> Made:
    percent, whole = rng.choice((5, 10, 15, 20, 25, 30, 40, 60, 75)), 20 * rng.randint(2, 60)
    one = whole / 100
    part = percent * whole // 100
    steps = [f"1 % of {whole} is {one:g}", f"{percent} * {one:g} = {part}"]
    return f"What is {percent} % of {whole}?", steps, str(part)


def _story(rng: random.Random) -> Made:
    name, other = rng.sample(_NAMES, 2)
    thing = rng.choice(_THINGS)
    packs, each, given = rng.randint(2, 9), rng.randint(3, 20), rng.randint(1, 5)
    all_of_them = packs * each
    left = all_of_them - given
    steps = [
        f"{packs} * {each} = {all_of_them}",
        f"{all_of_them} - {given} = {left}",
    ]
    question = (
        f"{name} has {packs} bags with {each} {thing} in each and gives {given} to {other}. "
        f"How many {thing} does {name} have left?"
    )
    return question, steps, str(left)


KINDS: dict[str, Callable[[random.Random], Made]] = {
    "chain": _chain,
    "product": _product,
    "equation": _equation,
    "divisor": _divisor,
    "legs": _legs,
    "day": _day,
    "share": _share,
    "story": _story,
}


def generate(options: WorkedOptions, seed: int) -> list[Example]:
    """Different problems of every kind, in a seeded order."""
    made: list[Example] = []
    for kind, make in KINDS.items():
        rng = random.Random(f"{seed}:{kind}")
        found: dict[str, Example] = {}
        for _ in range(20 * options.each):
            question, steps, answer = make(rng)
            text = "\n".join([*steps, f"The answer is {answer}."])
            found.setdefault(
                group_of(question), Example.of_pair(question, text, group_of(question), kind=kind)
            )
            if len(found) == options.each:
                break
        made.extend(found.values())
    random.Random(seed).shuffle(made)
    return made
